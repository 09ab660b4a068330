"""Layers solved together, as on a GPU, give what each gives by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.compensation import equations
from gnnrl.pruning.compensation.equations import Stacks
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.compensation.moments import collect
from gnnrl.pruning.surgery import Surgeon


@pytest.fixture(scope="module", params=["resnet20", "mobilenet_v2"])
def solve(request) -> GramSolve:
    torch.manual_seed(0)
    network = build_network(request.param, input_shape=(1, 8, 8), num_classes=10).eval()
    graph = extract(network, torch.zeros(1, 1, 8, 8))
    images = torch.rand(24, 1, 8, 8)
    rng = torch.Generator().manual_seed(0)
    return GramSolve(graph, collect(Surgeon(network, graph).analysis, images, generator=rng))


def stays_of(solve: GramSolve, seed: int) -> np.ndarray:
    """Random units, and at least one of each layer's channels."""
    units = 1 + max(max(e.units.max(), e.filters.max()) for e in solve._layers)
    stays = np.append(np.random.default_rng(seed).random(units) < 0.4, True)
    for each in solve._layers:
        stays[[each.units[0], each.filters[0]]] = True
    return stays


@pytest.mark.parametrize("elements", [2**24, 400**2])
def test_maps_and_statistics_are_those_of_each_layer_alone(solve, elements, monkeypatch):
    monkeypatch.setattr(equations, "ELEMENTS", elements)  # the second: in several pieces
    stays = stays_of(solve, 1)
    stacks = Stacks(solve._layers, torch.device("cpu"))
    found = {id(each): (best, *rest) for each, best, rest in stacks.solved(solve._layers, stays)}
    assert len(found) == len(solve._layers) > 10
    for each in solve._layers:
        kept, filters = each.kept(stays)
        alone = solve._best(each, kept, filters)
        for one, other in zip((alone, *each.statistics(kept, alone)), found[id(each)], strict=True):
            torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8)


def test_only_layers_that_lost_inputs_are_given_back(solve):
    stacks, lost = Stacks(solve._layers, torch.device("cpu")), solve._layers[2:4]
    found = list(stacks.solved(lost, stays_of(solve, 2)))
    assert {each.reader.layer for each, *_ in found} == {each.reader.layer for each in lost}
