"""The parts of a network that must not lose all of their channels."""

# U: units

from __future__ import annotations

import math

import numpy as np
import torch

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.importance import Importance
from gnnrl.rl.subsets import Choice
from gnnrl.search.spaces.channel_order import needed


def choice_of(
    graph: ComputationalGraph,
    importance: Importance | None,
    keep: int,
    least: int,
    fraction: float,
) -> Choice:
    """Choose `keep` units; every group keeps `least` of its own and a `fraction`, at most all.

    Where an operation reads some of a group only (after a split), its most important unit is a
    part of its own that is always kept, so that no operation is left without input.
    """
    sizes = [group.size for group in graph.groups]
    part = np.repeat(np.arange(len(sizes)), sizes)
    floors = [min(size, max(least, math.ceil(fraction * size - 1e-9))) for size in sizes]
    score = np.zeros(graph.num_units)
    if importance is not None:
        score = np.concatenate([importance[group.name].double().numpy() for group in graph.groups])
    rank = np.argsort(np.argsort(-score, kind="stable"))  # ties are broken by index
    for unit in needed(graph, rank):
        floors[part[unit]] = max(floors[part[unit]] - 1, 0)
        part[unit] = len(floors)
        floors.append(1)
    return Choice(keep, torch.from_numpy(part), torch.tensor(floors))
