"""Detectors keep their own Python; what is cut is exact, counted and trains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from gnnrl.tracing.read import read_network
from tests.cutting import random_plan, randomise
from tests.graph.detectors import (
    NAMES,
    MaskedDetector,
    detector,
    images,
    outputs_of,
    settled,
    targets,
    tiny,
)


def cut(network: nn.Module, size: int) -> tuple[ComputationalGraph, PruningPlan, nn.Module]:
    graph = extract(network, torch.zeros(1, 3, size, size))
    settled(network, graph, size)
    plan = random_plan(graph, 0.6, 0)
    return graph, plan, prune(network, graph, plan)


def assert_is_masked(network: nn.Module, plan: PruningPlan, subnet: nn.Module, size: int) -> None:
    """Head outputs and boxes are those of the dense detector without those channels."""
    masked = MaskedDetector(network, torch.zeros(1, 3, size, size), plan)
    given = [image.double() for image in images(2, size)]
    raw, boxes = outputs_of(copy.deepcopy(subnet).double(), masked.parts, given)
    expected_raw, expected = outputs_of(masked.network, masked.parts, given)
    last, expected_last = raw[-1], expected_raw[-1]
    torch.testing.assert_close(last, expected_last, rtol=1e-9, atol=1e-9)
    assert sum(len(found["boxes"]) for found in boxes) > 0
    for found, wanted in zip(boxes, expected, strict=True):
        assert found.keys() == wanted.keys()
        for key in found:
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-7, atol=1e-7)


def assert_flops_are_counted(
    graph: ComputationalGraph, plan: PruningPlan, subnet: nn.Module, size: int
) -> None:
    """The cost is what PyTorch counts as each part runs, as often as it is called."""
    shell, counted = read_network(subnet, torch.zeros(2, 3, size, size)).meta["shell"], 0
    for part in shell.parts.values():
        given = pytree.tree_map(lambda t: torch.zeros(t.shape), dict(part.example))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            subnet.get_submodule(part.name)(**given)
        counted += counter.get_total_flops() // 2 * len(part.calls)
    told = cost(graph, plan)
    assert 2 * told.flops == counted  # of two images
    assert told.parameters == sum(p.numel() for p in subnet.parameters())


def assert_trains(subnet: nn.Module, size: int) -> None:
    subnet = copy.deepcopy(subnet).train()
    losses = subnet(images(2, size), targets(2, size))
    total = sum(losses.values())
    total.backward()
    assert len(losses) > 1 and torch.isfinite(total)
    assert all(p.grad is not None for p in subnet.parameters() if p.requires_grad)


def assert_is_right(network: nn.Module, size: int) -> None:
    randomise(network)
    graph, plan, subnet = cut(network, size)
    assert isinstance(subnet, type(network))
    assert_flops_are_counted(graph, plan, subnet, size)
    assert_is_masked(network, plan, subnet, size)
    assert_trains(subnet, size)


@pytest.mark.parametrize("kind", ["fcos", "fasterrcnn"])
def test_a_detector_is_cut_exactly_and_stays_a_detector(kind: str) -> None:
    assert_is_right(tiny(kind), 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_detectors_are_cut_exactly(name: str) -> None:
    assert_is_right(detector(name), 64)
