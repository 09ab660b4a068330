"""Kernels become smaller around their centre; graph, costs and network agree on it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.kernels import shrunk, smaller_kernels
from gnnrl.networks.build import build_network
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon, prune

SHAPE = (3, 12, 12)


def read(network: nn.Module, protect: tuple[str, ...] = ()) -> ComputationalGraph:
    return extract(network.eval(), torch.zeros(1, *SHAPE), protect)


def mixed() -> nn.Sequential:
    """Convolutions of every kind of padding."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding="same", dilation=2),
        nn.Conv2d(8, 8, 4, padding="same", padding_mode="circular"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", groups=8),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.ConvTranspose2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


SIZES = {"0": (3, 1), "3": (3, 1), "4": (2,), "5": (1,), "6": (1,), "7": (1,)}


def test_sizes_are_those_for_which_the_padding_suffices():
    assert smaller_kernels(read(mixed())) == SIZES  # "8" has no padding


def test_protected_and_shared_kernels_keep_their_size():
    assert "0" not in smaller_kernels(read(mixed(), ("0",)))
    tied = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    tied[2].weight = tied[1].weight
    assert smaller_kernels(read(tied)) == {"0": (1,)}


@pytest.mark.parametrize("smallest", [False, True])
def test_the_subnet_computes_what_zeros_around_the_centre_give(smallest):
    network = mixed().eval()
    graph = read(network)
    kernels = {layer: sizes[-1 if smallest else 0] for layer, sizes in SIZES.items()}
    plan = PruningPlan(kernels=kernels)
    subnet = prune(network, graph, plan)
    by_hand = copy.deepcopy(network)
    for layer, size in kernels.items():
        weight = by_hand.get_submodule(layer).weight.data
        edge = (weight.shape[-1] - size) // 2
        kept = weight[..., edge : edge + size, edge : edge + size].clone()
        weight.zero_()
        weight[..., edge : edge + size, edge : edge + size] = kept
    images = torch.randn(2, *SHAPE)
    assert torch.allclose(subnet(images), by_hand(images), atol=1e-5)
    Surgeon(network, graph).prove(plan)

    found = cost(graph, plan)
    assert found.parameters == sum(p.numel() for p in subnet.parameters())
    with FlopCounterMode(display=False) as counter:
        subnet(images[:1])
    assert found.flops == counter.get_total_flops() // 2
    again = extract(subnet, torch.zeros(1, *SHAPE))
    assert cost(again) == cost(shrunk(graph, kernels)) == found


def test_kernels_channels_and_layers_shrink_in_one_plan_that_checkpoints_repeat(tmp_path):
    torch.manual_seed(0)
    network = build_network("resnet20").eval()
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    kept = {"layer2.0.conv1": tuple(range(0, 32, 2))}
    plan = PruningPlan(kept, frozenset({"layer1.1"}), kernels={"conv1": 1, "layer2.0.conv1": 1})
    surgeon = Surgeon(network, graph)
    surgeon.prove(plan)
    subnet = surgeon.cut(plan)
    assert subnet.get_submodule("layer2.0.conv1").weight.shape == (16, 16, 1, 1)
    assert cost(graph, plan).parameters == sum(p.numel() for p in subnet.parameters())

    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    Checkpoint.of(network, "resnet20").following(subnet, plan, graph).save(tmp_path / "subnet")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(Checkpoint.load(tmp_path / "subnet").restore()(images), subnet(images))

    repaired = compensate(surgeon, plan, torch.randn(64, 3, 32, 32), torch.Generator())
    wanted = network(images)
    assert (repaired(images) - wanted).norm() < (subnet(images) - wanted).norm()


def test_what_a_kernel_cannot_be_is_said():
    graph = read(mixed())
    for kernels, said in (
        ({"0": 2}, "the kernel of layer '0' cannot have the size 2; it can have 3, 1"),
        ({"8": 1}, "it can have only its own"),
        ({"no": 1}, "layer 'no' smaller, which this network does not have"),
    ):
        with pytest.raises(UserError, match=said):
            cost(graph, PruningPlan(kernels=kernels))
    with pytest.raises(UserError, match="must have a size of at least 1, got 0"):
        PruningPlan(kernels={"0": 0})
    with pytest.raises(UserError, match="layer '0' is removed and kept at once"):
        PruningPlan(removed_layers=frozenset({"0"}), kernels={"0": 1})


def test_plans_without_kernels_are_the_plans_that_they_were():
    assert PruningPlan({"a": (0, 1)}).to_json() == {
        "kept": {"a": [0, 1]},
        "removed_layers": [],
        "weight_sparsity": {},
    }
