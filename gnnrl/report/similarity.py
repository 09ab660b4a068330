"""How alike the plans of several searches are."""

# P: plans   D: decisions

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
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

    Of channels, and of the single weights of the layers that a plan has masks for; where plans
    decide both, the mean of the two, since there are many more weights than channels.
    1: the same; plans that keep a fraction d at random have about d / (2 - d).
    Raises `UserError` for plans with weight sparsities or smaller kernels: they do not say which
    weights are kept.
    """
    if any(plan.weight_sparsity or plan.kernels for plan in plans):
        raise UserError(
            "got a plan with weight_sparsity or kernels, expected plans that differ in channels, "
            "layers or masks: what these keep cannot be compared, so leave them out"
        )
    return np.mean([_alike(kept) for kept in _decided(graph, plans)], axis=0)


def by_chance(graph: ComputationalGraph, plans: Sequence[PruningPlan]) -> float:
    """Return the mean similarity of plans that keep as many, but at random."""
    return float(np.mean([_alike_by_chance(kept) for kept in _decided(graph, plans)]))


def names_of(plans: Sequence[Path]) -> list[str]:
    """Return a name for each file: its own, or its folder as far as folders differ, or both.

    The first of these that tells all files apart.  Raises `UserError` where none does.
    """
    common = Path(os.path.commonpath([plan.parent.resolve() for plan in plans]))
    paths = [plan.resolve().relative_to(common).with_suffix("") for plan in plans]
    for names in (
        [path.name for path in paths],
        [path.parent.as_posix() for path in paths],
        [path.as_posix() for path in paths],
    ):
        if len(set(names)) == len(names):
            return names
    raise UserError("a plan is named twice: name each file once")


def rows(names: Sequence[str], found: np.ndarray) -> list[Mapping[str, Any]]:
    """Return a row for each plan, with a column for each plan."""
    lines = zip(names, found.round(6).tolist(), strict=True)
    return [{"plan": name, **dict(zip(names, line, strict=True))} for name, line in lines]


def _alike(kept: np.ndarray) -> np.ndarray:
    """What both keep over what either keeps `[P, P]`, of what each plan keeps, bool `[P, D]`."""
    both = kept.astype(np.int64) @ kept.T.astype(np.int64)
    own = kept.sum(1)
    return both / np.maximum(own[:, None] + own[None, :] - both, 1)


def _alike_by_chance(kept: np.ndarray) -> float:
    share = kept.mean(1).tolist()
    pairs = [(a, b) for i, a in enumerate(share) for b in share[:i]]
    return float(np.mean([a * b / (a + b - a * b) for a, b in pairs]))


def _decided(graph: ComputationalGraph, plans: Sequence[PruningPlan]) -> list[np.ndarray]:
    """What each plan keeps, bool `[P, D]`: of channels and of single weights, as far as decided."""
    masked = sorted({layer for plan in plans for layer in plan.masks})
    found = []
    if masked:
        found.append(np.array([_weights(graph, plan, masked) for plan in plans]))
    if not masked or any(plan.kept or plan.removed_layers for plan in plans):
        if not graph.num_units:
            raise UserError("the network has no channels to compare plans by")
        absent = [absent_layers(graph, plan.removed_layers) for plan in plans]
        pairs = zip(plans, absent, strict=True)
        found.append(np.array([kept_units(graph, plan.kept, gone) for plan, gone in pairs]))
    return found


def _weights(graph: ComputationalGraph, plan: PruningPlan, masked: Sequence[str]) -> np.ndarray:
    """Which weights of these layers a plan keeps, bool `[D]`."""
    parts = []
    for layer in masked:
        size = math.prod(graph.parameters[graph.layers[layer].parameters[0]].shape)
        whole = np.ones(size, dtype=bool)
        parts.append(unpacked(layer, plan.masks[layer], size) if layer in plan.masks else whole)
    return np.concatenate(parts)
