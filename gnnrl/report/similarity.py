"""How alike the plans of several searches are."""

# P: plans   D: decisions

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.masks import unpacked
from gnnrl.graph.removal import absent_layers
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.plan import PruningPlan


def similarities(graph: ComputationalGraph, plans: Sequence[PruningPlan]) -> np.ndarray:
    """Return for each pair of plans what both keep over what either keeps `[P, P]` (Jaccard).

    Of channels, and, where a plan has masks, of the single weights of the layers that have one.
    1: the same; plans that keep a fraction d at random have about d / (2 - d).
    """
    masked = sorted({layer for plan in plans for layer in plan.masks})
    kept = np.array([_kept(graph, plan, masked) for plan in plans])
    both = kept.astype(np.int64) @ kept.T.astype(np.int64)
    own = kept.sum(1)
    return both / np.maximum(own[:, None] + own[None, :] - both, 1)


def by_chance(graph: ComputationalGraph, plans: Sequence[PruningPlan]) -> float:
    """Return the mean similarity of plans that keep as many, but at random."""
    masked = sorted({layer for plan in plans for layer in plan.masks})
    share = [float(_kept(graph, plan, masked).mean()) for plan in plans]
    pairs = [(a, b) for i, a in enumerate(share) for b in share[:i]]
    return float(np.mean([a * b / (a + b - a * b) for a, b in pairs]))


def rows(names: Sequence[str], found: np.ndarray) -> list[Mapping[str, Any]]:
    """Return a row for each plan, with a column for each plan."""
    lines = zip(names, found.round(6).tolist(), strict=True)
    return [{"plan": name, **dict(zip(names, line, strict=True))} for name, line in lines]


def _kept(graph: ComputationalGraph, plan: PruningPlan, masked: Sequence[str]) -> np.ndarray:
    """What a plan keeps, bool `[D]`: the channels, or the weights of the layers that are masked."""
    if not masked:
        if not graph.num_units:
            raise UserError("the network has no channels to compare plans by")
        return kept_units(graph, plan.kept, absent_layers(graph, plan.removed_layers))
    parts = []
    for layer in masked:
        size = math.prod(graph.parameters[graph.layers[layer].parameters[0]].shape)
        whole = np.ones(size, dtype=bool)
        parts.append(unpacked(layer, plan.masks[layer], size) if layer in plan.masks else whole)
    return np.concatenate(parts)
