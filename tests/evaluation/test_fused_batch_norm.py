"""Norms that are folded into convolutions change what a subnet costs, not what it says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from gnnrl.evaluation.fused_batch_norm import FoldedConvolution, FoldedSubnet
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import batch_statistics, recalibrate
from gnnrl.pruning.surgery import Surgeon

IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class PreActivated(nn.Module):
    """Norms before the convolutions that they belong to; the stem is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv, self.late = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv(F.relu(self.norm(x)))
        return F.relu(self.late(x)).mean((2, 3))


class Flat(nn.Module):
    """Linear layers with norms; one without scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(768, 9), nn.BatchNorm1d(9)
        self.second, self.bare = nn.Linear(9, 5), nn.BatchNorm1d(5, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x.flatten(1))))
        return self.bare(self.second(x))


class Residual(nn.Module):
    """Shortcuts that are read again, that are broadcast, that come late, that are written into."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if k == 0 else 4, 4, 3, 1, 1) for k in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, affine=k != 3) for k in range(5))
        self.gate, self.gate_norm = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

    def block(self, k: int, x: Tensor) -> Tensor:
        return self.norms[k](self.convs[k](x))

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.block(0, x))
        second = F.relu(self.block(1, first) + first, inplace=True)
        gate = F.relu(self.gate_norm(self.gate(second.mean((2, 3), keepdim=True))))
        third = F.relu(self.block(2, second) + gate)
        fourth = self.block(3, third)
        fourth += F.max_pool2d(third, 3, 1, 1)
        last = self.block(4, fourth) + second
        return (last * first).mean((2, 3)) + third.mean((2, 3))


class Plain(nn.Module):
    """No norm at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).mean((2, 3))


def network_of(kind: object) -> nn.Module:
    """A network whose norms have scales and shifts of both signs."""
    torch.manual_seed(0)
    network = build_network(kind) if isinstance(kind, str) else kind()
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None and module.affine:
            module.weight.data.normal_()
            module.bias.data.normal_()
    return network.eval()


def unfolded(network: nn.Module, images: Tensor) -> Tensor:
    with batch_statistics(network):
        return network(images)


def channels_last(network: nn.Module) -> tuple[nn.Module, Tensor]:
    last = torch.channels_last
    return network.to(memory_format=last), IMAGES.contiguous(memory_format=last)


@pytest.mark.parametrize("kind", [PreActivated, Flat, Residual, Plain, "resnet20", "mobilenet_v1"])
@pytest.mark.parametrize("prepare", [channels_last, lambda network: (network, IMAGES)])
@torch.inference_mode()
def test_with_the_statistics_of_all_images_the_output_is_that_of_the_unfolded(kind, prepare):
    subnet, images = prepare(fx.symbolic_trace(network_of(kind)).eval())
    expected = unfolded(subnet, images)
    folded = FoldedSubnet(subnet)
    close = {"rtol": 1e-3, "atol": 1e-3 * float(expected.abs().max())}
    torch.testing.assert_close(folded.first(images), expected, **close)
    torch.testing.assert_close(folded(images), expected, **close)
    parts = torch.cat([folded(part) for part in images.split(5)])  # further images change nothing
    torch.testing.assert_close(parts, expected, **close)


class Chain(nn.Sequential):
    """One convolution, one norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@torch.inference_mode()
def test_further_images_are_normalised_by_the_statistics_of_the_first():
    subnet, images = channels_last(fx.symbolic_trace(network_of(Chain)).eval())
    folded, first, rest = FoldedSubnet(subnet), images[:8], 2 * images[8:] + 1
    folded.first(first)
    recalibrate(subnet, [first])  # its variances are unbiased, of 8 x 14 x 14 numbers
    torch.testing.assert_close(folded(rest), subnet(rest), rtol=1e-2, atol=1e-2)
    assert not torch.allclose(unfolded(subnet, rest), subnet(rest), rtol=0.1, atol=0.1)


@torch.inference_mode()
def test_the_subnet_is_left_as_it_was():
    subnet, images = channels_last(fx.symbolic_trace(network_of("resnet20")).eval())
    before, code = copy.deepcopy(subnet.state_dict()), subnet.code
    said = subnet(images)
    folded = FoldedSubnet(subnet)
    folded.first(images[:8])
    folded(images[8:])
    after = subnet.state_dict()
    assert after.keys() == before.keys() and subnet.code == code
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(subnet(images), said)


@torch.inference_mode()
def test_new_weights_of_the_subnet_are_those_that_are_folded():
    subnet, images = channels_last(fx.symbolic_trace(network_of(Residual)).eval())
    folded = FoldedSubnet(subnet)
    before = folded.first(images)
    subnet.convs.get_submodule("1")._parameters["weight"] = torch.randn(4, 4, 3, 3)
    assert not torch.equal(folded.first(images), before)
    torch.testing.assert_close(folded(images), unfolded(subnet, images), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_convolutions_of_a_residual_network_do_it_all_at_once():
    network = network_of("resnet20")
    surgeon = Surgeon(network, extract(network, IMAGES[:1]))
    whole = surgeon.analysis.graph
    subnet, images = channels_last(surgeon.cut_units(torch.ones(whole.num_units).bool().numpy()))
    folded = FoldedSubnet(subnet.eval())
    folded.first(images)
    units = [m for m in folded._twin.units if isinstance(m, FoldedConvolution)]
    called = [n.target for n in folded._twin.graph.nodes if n.op == "call_function"]
    assert len(units) == 19 and F.relu not in called
    if torch.backends.mkldnn.is_available():
        assert sum(unit._fused for unit in units) == 19 - 2  # two shortcuts are padded
