"""In which order the channels of each group are removed."""

# G: groups   U: units

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.graph import Channels, ComputationalGraph
from gnnrl.pruning.importance import Importance


def ordered(graph: ComputationalGraph, importance: Importance) -> tuple[np.ndarray, np.ndarray]:
    """Units of every group, most important first `[U]`, and how many each must keep `[G]`.

    Where operations read different parts of a group (after a split), the channels without which
    one of them would read nothing come first.  Ties are broken by index.
    """
    ranked = []
    for group in graph.groups:
        if group.name not in importance or len(importance[group.name]) != group.size:
            raise UserError(f"importance has no {group.size} scores for group {group.name!r}")
        order = np.argsort(-importance[group.name].double().numpy(), kind="stable")
        ranked.append(group.start + order)
    core = [[order[0]] for order in ranked]
    place = np.concatenate([np.arange(len(order)) / len(order) for order in ranked])
    rank = np.empty(graph.num_units)
    rank[np.concatenate(ranked)] = place
    owner = np.repeat(np.arange(len(ranked)), [len(order) for order in ranked])
    for unit in needed(graph, rank, [order[0] for order in ranked]):
        core[owner[unit]].append(unit)
    parts = [
        np.concatenate([first, order[~np.isin(order, first)]])
        for first, order in zip(core, ranked, strict=True)
    ]
    return np.concatenate(parts), np.array([len(first) for first in core])


def needed(graph: ComputationalGraph, rank: np.ndarray, kept: Iterable[int] = ()) -> list[int]:
    """Units without which some operation reads nothing, though every group keeps some.

    rank `[U]`: the unit of the lowest rank is taken.  kept: units that are kept anyway.
    """
    whole = [set(range(group.start, group.start + group.size)) for group in graph.groups]
    known = {int(unit) for unit in kept}
    chosen: list[int] = []
    for runs in graph.axes:
        units = Channels(0, runs).units
        found = set(units.tolist())
        if min(found, default=-1) < 0 or any(group <= found for group in whole):
            continue
        if not known & found:
            best = int(units[rank[units].argmin()])
            chosen.append(best)
            known.add(best)
    return chosen
