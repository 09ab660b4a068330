"""A subnet that is not the masked network is refused before anything is written."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning import surgery
from gnnrl.pruning.proof import masked, prove
from gnnrl.pruning.surgery import Surgeon, cut_units, prune
from tests.cutting import random_plan, randomise
from tests.graph.transformers import Transformer

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def convolutional(*behind: nn.Module) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sigmoid(), *behind,
        nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return randomise(network)


def cut(network: nn.Module, **settings: object):
    graph = extract(network, IMAGES, **settings)
    surgeon = Surgeon(network, graph)
    keep = kept_units(graph, random_plan(graph, 0.5, seed=1).kept)
    return surgeon.analysis, keep, cut_units(surgeon.analysis, keep)


RIGHT = {
    "convolutions": lambda: convolutional(),
    "dropout": lambda: convolutional(nn.Dropout(0.5), nn.Dropout2d(0.5)),
    "random slopes": lambda: convolutional(nn.RReLU()),
    "group norm": lambda: convolutional(nn.GroupNorm(2, 8)),
    "heads": lambda: Transformer("index", token=True),
    "attention with dropout": lambda: Transformer("module"),
    "a function": lambda: Transformer("raw"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_subnets_are_accepted(name):
    prove(*cut(randomise(RIGHT[name]())))


def test_the_saving_of_heads_of_width_one_is_proved_by_einsum_as_well():
    analysis, keep, _ = cut(randomise(Transformer("einsum")), attention="width")
    keep = np.isin(np.arange(len(keep)), [0, 6, *range(12, 36)])
    prove(analysis, keep, cut_units(analysis, keep))


def test_where_a_layer_norm_sees_what_is_removed_shapes_are_compared():
    analysis, keep, subnet = cut(randomise(Transformer("index")), embedding=True)
    prove(analysis, keep, subnet)
    subnet.head = nn.Linear(subnet.head.in_features, 6)
    with pytest.raises(UserError, match="outputs of other shapes"):
        prove(analysis, keep, subnet)


def test_removed_channels_of_the_masked_network_are_zero_and_the_dense_one_is_left_as_it_was():
    network = convolutional()
    analysis, keep, _ = cut(network)
    held = masked(analysis, keep)
    assert (held.get_parameter("0.weight") == 0).all((1, 2, 3)).any()
    assert not (network[0].weight == 0).any()
    assert not (analysis.traced.get_parameter("0.weight") == 0).any()


@pytest.mark.parametrize(
    ("where", "part"), [("0.weight", "0"), ("4.weight", "4"), ("7.weight", "7"), ("1.bias", "1")]
)
def test_a_difference_names_the_first_part_that_has_it(where, part):
    analysis, keep, subnet = cut(convolutional(nn.Identity()))
    with torch.no_grad():
        subnet.get_parameter(where).mul_(1.01)
    with pytest.raises(UserError, match=f"of the plan: {part} gives other numbers"):
        prove(analysis, keep, subnet, thorough=False)


def test_other_behaviour_in_training_is_a_difference():
    analysis, keep, subnet = cut(convolutional())
    subnet.get_submodule("1").train = lambda mode=True: subnet.get_submodule("1")
    with pytest.raises(UserError, match="training mode"):
        prove(analysis, keep, subnet)


class Sized(nn.Module):
    """A network whose subnet is made to take one size of images, or of batches, alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv1d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
        return self.head(x).mean(2)


@pytest.mark.parametrize("axis", [0, 2], ids=["of the batch", "of the images"])
def test_a_size_that_was_written_down_is_a_difference(axis):
    analysis, keep, subnet = cut(randomise(Sized()))
    node = next(n for n in subnet.graph.nodes if n.target == "reshape")
    node.update_arg(1 + axis, int(node.meta["example"].shape[axis]))
    subnet.recompile()
    with pytest.raises(UserError, match="gives an error"):
        prove(analysis, keep, subnet)


def test_a_surgeon_compares_its_first_subnet_and_prune_every_one(monkeypatch):
    network = convolutional()
    graph = extract(network, IMAGES)
    plan, right = random_plan(graph, 0.5, seed=1), surgery.cut_units

    def wrong(*given, **options):
        subnet = right(*given, **options)
        with torch.no_grad():
            subnet.get_parameter("6.weight").neg_()
        return subnet

    surgeon = Surgeon(network, graph)
    surgeon.cut(plan)
    monkeypatch.setattr(surgery, "cut_units", wrong)
    surgeon.cut(plan)
    for refused in (lambda: prune(network, graph, plan), lambda: surgeon.prove(plan)):
        with pytest.raises(UserError, match="6 gives other numbers"):
            refused()


@pytest.mark.parametrize("what", ["flops", "parameters"])
def test_a_subnet_that_saves_less_than_the_graph_says_is_refused(what):
    network = convolutional()
    graph = extract(network, IMAGES)
    surgeon, plan = Surgeon(network, graph), random_plan(graph, 0.5, seed=1)
    analysis, keep = surgeon.analysis, kept_units(graph, plan.kept)
    subnet = cut_units(analysis, keep)
    if what == "parameters":
        subnet.get_submodule("1").register_parameter("unused", nn.Parameter(torch.ones(3)))
    else:
        last = subnet.get_submodule("6")
        last.register_forward_hook(lambda layer, read, given: layer.forward(read[0]))
    with pytest.raises(UserError, match="a saving of"):
        prove(analysis, keep, subnet)


class Detector(nn.Module):
    """As torchvision's: losses in training; finds the brightest image, which is no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, images, targets=None):
        best = int(torch.stack([image.sum() for image in images]).argmax())
        found = self.head(self.body(torch.stack(list(images)))).mean((2, 3))
        if not self.training:
            return {"boxes": found, "best": found[best]}
        wanted = torch.cat([target["boxes"] for target in targets])
        return {"places": (found - wanted).abs().mean()}


def test_a_detectors_losses_are_compared():
    network = randomise(Detector())
    analysis, keep, subnet = cut(network)
    prove(analysis, keep, subnet)
    subnet.get_submodule("body.1").train = lambda mode=True: subnet.get_submodule("body.1")
    with pytest.raises(UserError, match="training mode"):
        prove(analysis, keep, subnet)


def test_a_subnet_is_in_the_mode_of_the_network_and_left_as_it_was():
    network = convolutional().train()
    analysis, keep, subnet = cut(network)
    before, state = torch.random.get_rng_state(), copy.deepcopy(subnet.state_dict())
    prove(analysis, keep, subnet)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(m.training for m in subnet.modules())
    assert all(torch.equal(value, state[name]) for name, value in subnet.state_dict().items())
