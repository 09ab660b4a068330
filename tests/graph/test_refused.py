"""Networks that are refused, with what to do, and what protecting a part allows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.cutting import randomise
from tests.graph.made import IMAGE, Made, refusal


def _branch(n: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def _item(n: nn.Module, x: Tensor) -> Tensor:
    return x * x.max().item()


def _nonzero(n: nn.Module, x: Tensor) -> Tensor:
    return x[x.sum((1, 2, 3)) > 0]


def _count(n: nn.Module, x: Tensor) -> Tensor:
    for _ in range(int(x.abs().sum())):
        x = n.conv2(x)
    return x


@pytest.mark.parametrize("middle", [_branch, _item, _nonzero, _count])
def test_what_depends_on_the_data_is_refused(middle: Callable[..., Tensor]) -> None:
    text = refusal(Made(middle))
    assert "depends on the data" in text and "protect" in text


class Part(nn.Module):
    """A part that holds something which cannot be read."""

    def __init__(self, how: Callable[..., Tensor]) -> None:
        super().__init__()
        self.how, self.conv2 = how, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.how(self, x))


class WithPart(nn.Module):
    def __init__(self, how: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv1, self.part = nn.Conv2d(3, 8, 1), Part(how)
        self.conv3, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv3(self.part(self.conv1(x))).mean((2, 3)))


def _fourier(n: nn.Module, x: Tensor) -> Tensor:
    return torch.fft.fft(x).real


def _attention(n: nn.Module, x: Tensor) -> Tensor:
    y = x.flatten(2)
    return (torch.softmax(y @ y.transpose(1, 2), -1) @ y).view(x.shape)


@pytest.mark.parametrize(
    ("how", "operation"), [(_fourier, "fft_fft"), (_attention, "matmul"), (_branch, "gt")]
)
def test_a_refusal_names_layer_operation_and_remedy(
    how: Callable[..., Tensor], operation: str
) -> None:
    text = refusal(WithPart(how))
    assert text.startswith("part: ") and f"'{operation}'" in text and "extract.protect" in text


@pytest.mark.parametrize("how", [_fourier, _attention, _branch, _item])
def test_protecting_the_part_lets_the_rest_be_cut(how: Callable[..., Tensor]) -> None:
    network, image = randomise(WithPart(how)), torch.randn(2, 3, 8, 8)
    graph = extract(network, image, protect=["part"])
    assert [g.name for g in graph.groups] == ["conv3"]
    plan = PruningPlan({"conv3": (1, 4, 6)})
    subnet = prune(network, graph, plan)
    hidden = network.conv3(network.part(network.conv1(image))).mean((2, 3))
    weight = network.head.weight[:, [1, 4, 6]]
    expected = hidden[:, [1, 4, 6]] @ weight.T + network.head.bias
    torch.testing.assert_close(subnet(image), expected)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_transformers_are_refused(name: str) -> None:
    with torch.device("meta"):
        network = build_network(f"torchvision/{name}", 10, (3, 224, 224))
    text = refusal(network, torch.zeros(1, 3, 224, 224))
    assert "protect" in text and ("encoder" in text or "features" in text)


def test_protected_attention_stays_and_the_rest_is_cut() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.attention = nn.Conv2d(3, 8, 1), nn.MultiheadAttention(8, 2)
            self.linear, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv1(x).flatten(2).permute(2, 0, 1)
            y = self.attention(y, y, y)[0]
            return self.head(self.linear(y).relu().mean(0))

    assert "attention: " in refusal(Attending())
    graph = extract(Attending(), IMAGE, protect=["attention"])
    assert [g.name for g in graph.groups] == ["linear"]


def test_several_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    assert "2 inputs" in refusal(Two())


def test_an_image_it_cannot_take_is_refused() -> None:
    assert "shape" in refusal(build_network("basic_cnn"), torch.zeros(1, 4, 32, 32))


def test_protecting_what_is_not_there_is_refused() -> None:
    assert "'nowhere'" in refusal(build_network("basic_cnn"), protect=("nowhere",))


def test_protected_layers_keep_every_filter() -> None:
    network, image = build_network("resnet20"), torch.zeros(1, 3, 32, 32)
    free = extract(network, image)
    layer = free.groups[1].layers[0]
    held = extract(network, image, protect=[layer])
    assert all(layer not in group.layers for group in held.groups)
    assert held.num_units == free.num_units - free.groups[1].size
