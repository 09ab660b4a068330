"""The parts of a network that must not lose all of their channels."""

# G: groups   U: units   P: parts

from __future__ import annotations

import math

import numpy as np
import torch

from gnnrl.graph.graph import Channels, ComputationalGraph
from gnnrl.pruning.importance import Importance
from gnnrl.rl.subsets import Choice


def choice_of(
    graph: ComputationalGraph,
    importance: Importance | None,
    keep: int,
    least: int,
    fraction: float,
) -> Choice:
    """Choose `keep` units; every group keeps `least` of its own and a `fraction`, at most all.

    Where an operation reads some of a group only (after a split), its most important unit is a
    part of its own that always stays, so that no operation is left without input.
    """
    sizes = [group.size for group in graph.groups]
    part = np.repeat(np.arange(len(sizes)), sizes)
    floors = [min(size, max(least, math.ceil(fraction * size - 1e-9))) for size in sizes]
    for unit in _needed(graph, importance):
        floors[part[unit]] = max(floors[part[unit]] - 1, 0)
        part[unit] = len(floors)
        floors.append(1)
    return Choice(keep, torch.from_numpy(part), torch.tensor(floors))


def _needed(graph: ComputationalGraph, importance: Importance | None) -> list[int]:
    """Units without which some operation would read nothing, though every group keeps some."""
    score = np.zeros(graph.num_units)
    if importance is not None:
        score = np.concatenate([importance[group.name].double().numpy() for group in graph.groups])
    whole = [set(range(g.start, g.start + g.size)) for g in graph.groups]
    chosen: list[int] = []
    for runs in graph.axes:
        units = set(Channels(0, runs).units.tolist())
        if min(units, default=-1) < 0 or any(group <= units for group in whole):
            continue
        if not units.intersection(chosen):
            chosen.append(max(sorted(units), key=lambda unit: score[unit]))
    return chosen
