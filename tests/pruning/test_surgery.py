"""The cut network is the dense one without those channels, for every network we name."""

from __future__ import annotations

import copy
import functools
import io

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.removal import removable
from gnnrl.networks import detectors
from gnnrl.networks.build import NETWORKS, build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon, prune
from tests.cutting import (
    assert_cut_is_exact,
    assert_equals_masked,
    assert_survives_saving,
    assert_trains,
    conditioned,
    flops_counted,
    random_plan,
    randomise,
)

FAST = (
    "basic_cnn resnet20 mobilenet_v1 shufflenet_v1 vgg16_bn torchvision/resnet18 "
    "torchvision/squeezenet1_1 torchvision/shufflenet_v2_x0_5"
).split()
TRANSFORMERS = ("vit", "swin", "maxvit")
TOO_LARGE = ("regnet_y_128gf",)  # 644 million parameters; its smaller siblings are tested
CNNS = [
    f"torchvision/{name}"
    for name in models.list_models(module=models)
    if not name.startswith(TRANSFORMERS) and name not in TOO_LARGE
]
ATTENTION = [f"torchvision/{name}" for name in ("vit_b_16", "swin_t", "swin_v2_t", "maxvit_t")]
OURS = [name for name in NETWORKS if name not in detectors.NETWORKS]  # tests/graph/test_detectors
SLOW = [name for name in (*OURS, *CNNS, *ATTENTION) if name not in FAST]


def _pixels(name: str) -> int:
    if name.endswith("inception_v3"):
        return 96
    if name in ATTENTION:
        return 224
    return 64 if name.startswith("torchvision/") else 32


def _network(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    side = _pixels(name)
    network, image = build_network(name, 10, (3, side, side)), torch.randn(2, 3, side, side)
    return conditioned(randomise(network), image), image


@functools.cache
def _read(name: str) -> tuple[nn.Module, torch.Tensor, Surgeon]:
    network, image = _network(name)
    return network, image, Surgeon(network, extract(network, image))


def _hold(name: str, keep_ratio: float, seed: int) -> None:
    network, image = _network(name)
    before = copy.deepcopy(network.state_dict())
    cut = assert_cut_is_exact(network, image, keep_ratio, seed)
    assert_trains(cut.subnet, image)
    assert_survives_saving(cut, image)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def plan_of(network: nn.Module, image: torch.Tensor, keep_ratio: float, seed: int) -> PruningPlan:
    return random_plan(extract(network, image), keep_ratio, seed)


@pytest.mark.parametrize("name", FAST)
def test_cut_network_equals_masked_network(name: str) -> None:
    _hold(name, 0.5, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_cut_network_equals_its_masked_network(name: str) -> None:
    _hold(name, 0.5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("keep_ratio", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("name", FAST)
def test_cut_equals_masked_at_every_level(name: str, keep_ratio: float) -> None:
    _hold(name, keep_ratio, seed=2)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v1"])
def test_keeping_everything_changes_nothing(name: str) -> None:
    network, image, surgeon = _read(name)
    subnet = surgeon.cut(PruningPlan({}))
    with torch.no_grad():
        torch.testing.assert_close(subnet(image), network(image), rtol=0.0, atol=0.0)
    assert dict(subnet.state_dict()).keys() == dict(network.state_dict()).keys()


@pytest.mark.parametrize("name", ["resnet20", "shufflenet_v1"])
def test_parameter_names_are_those_of_the_network(name: str) -> None:
    network, _, surgeon = _read(name)
    subnet = surgeon.cut(random_plan(surgeon.graph, 0.5, 0))
    assert list(subnet.state_dict()) == list(network.state_dict())


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v1"])
def test_a_subnet_takes_other_batches_and_larger_images(name: str) -> None:
    network, _, surgeon = _read(name)
    plan = random_plan(surgeon.graph, 0.5, 0)
    subnet = surgeon.cut(plan)
    for shape in ((1, 3, 32, 32), (5, 3, 40, 48)):
        assert_equals_masked(network, subnet, plan, torch.randn(shape), 1e-4)


def test_a_cut_network_can_be_cut_again() -> None:
    network, image = _network("resnet20")
    once = assert_cut_is_exact(network, image, 0.7, seed=0).subnet
    assert_cut_is_exact(once, image, 0.6, seed=1)


def test_a_surgeon_cuts_the_same_network_for_many_plans() -> None:
    network, image, surgeon = _read("shufflenet_v1")
    for seed in range(3):
        plan = random_plan(surgeon.graph, 0.5, seed)
        assert_equals_masked(network, surgeon.cut(plan), plan, image, 1e-4)


def test_dropout_and_stochastic_depth_act_in_training_only() -> None:
    blocks = [
        MBConvConfig(1, 3, 1, 32, 16, 1, 1.0, 1.0),
        MBConvConfig(6, 3, 2, 16, 24, 2, 1.0, 1.0),
    ]
    network = EfficientNet(blocks, 0.2, stochastic_depth_prob=0.8, num_classes=10, last_channel=64)
    image = torch.randn(2, 3, 32, 32)
    randomise(network)
    subnet = prune(network, extract(network, image), plan_of(network, image, 0.5, 0))
    with torch.no_grad():
        assert torch.equal(subnet(image), subnet(image))
        for module in subnet.modules():  # batch statistics would differ anyway
            module.training = not isinstance(module, nn.BatchNorm2d)
        assert not torch.equal(subnet(image), subnet(image))
        assert torch.equal(subnet.eval()(image), subnet(image))


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.dropout(self.conv(x), 0.5, self.training)
        return self.head(x.mean((2, 3)))


def test_a_flag_that_follows_training_goes_on_following_it() -> None:
    network, image = randomise(FunctionalDropout()), torch.randn(1, 3, 8, 8)
    subnet = prune(network, extract(network, image), plan_of(network, image, 0.5, 0))
    with torch.no_grad():
        assert torch.equal(subnet(image), subnet(image))
        subnet.train()
        assert not torch.equal(subnet(image), subnet(image))


class DropPath(nn.Module):
    """Stochastic depth as timm writes it: in evaluation it does nothing at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x * torch.bernoulli(torch.full((x.shape[0], 1, 1, 1), 0.5)) / 0.5


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), DropPath()
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return self.head((x + self.drop(self.conv2(x))).mean((2, 3)))


def test_a_part_that_acts_in_training_only_goes_on_acting() -> None:
    network, image = randomise(Dropping()), torch.randn(16, 3, 8, 8)
    graph = extract(network, image)
    plan = random_plan(graph, 0.5, seed=0)
    assert {group.layers for group in graph.groups} == {("conv1", "conv2")}
    subnet = prune(network, graph, plan)
    assert_equals_masked(network, subnet, plan, image, 1e-6)
    subnet.train()
    assert not torch.equal(subnet(image), subnet(image))


def test_subnets_can_be_copied_and_exported() -> None:
    _, image, surgeon = _read("resnet20")
    subnet = surgeon.cut(random_plan(surgeon.graph, 0.5, 0))
    with torch.no_grad():
        expected = subnet(image)
        assert torch.equal(copy.deepcopy(subnet)(image), expected)
        exported = torch.export.export(subnet, (image,)).module()
        torch.testing.assert_close(exported(image), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet20", "shufflenet_v1", "shufflenet_v2", "torchvision/mobilenet_v3_small"]
)
def test_onnx_says_what_the_subnet_says(name: str) -> None:
    network, image = _network(name)
    subnet = prune(network, extract(network, image), plan_of(network, image, 0.5, 0))
    program = torch.onnx.export(subnet, (image,), dynamo=True, verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, subnet(image).numpy(), rtol=0, atol=1e-4)


def test_removed_layers_pass_on_what_they_read() -> None:
    network, image, surgeon = _read("resnet20")
    part = next(
        name for name in removable(surgeon.graph) if name.startswith("stages") or "." in name
    )
    plan = PruningPlan(removed_layers=frozenset({part}))
    subnet = surgeon.cut(plan)
    by_hand = copy.deepcopy(network)
    parent, _, last = part.rpartition(".")
    setattr(by_hand.get_submodule(parent), last, nn.Identity())
    with torch.no_grad():
        torch.testing.assert_close(subnet(image), by_hand(image))
    assert cost(surgeon.graph, plan).flops == flops_counted(subnet, image)
    assert cost(surgeon.graph, plan).parameters == sum(p.numel() for p in subnet.parameters())


def test_sparse_layers_lose_their_smallest_weights() -> None:
    network, image = _network("basic_cnn")
    graph = extract(network, image)
    layer = next(iter(graph.layers))
    plan = PruningPlan(weight_sparsity={layer: 0.5})
    weight = prune(network, graph, plan).get_submodule(layer).weight
    dense = network.get_submodule(layer).weight
    gone = weight == 0
    assert gone.sum() == round(weight.numel() * 0.5)
    assert dense[gone].abs().max() <= dense[~gone].abs().min()
    assert cost(graph, plan).parameters == cost(graph).parameters - int(gone.sum())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 1, bias=False), nn.Conv2d(6, 6, 1, bias=False)
        self.b.weight = self.a.weight
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(self.stem(x)).relu()).mean((2, 3)))


def test_tied_weights_stay_tied() -> None:
    network, image = randomise(Tied()), torch.randn(2, 3, 8, 8)
    subnet = assert_cut_is_exact(network, image, 0.5, seed=0).subnet
    assert subnet.a.weight is subnet.b.weight
