"""In which order the channels of each group go."""

# G: groups   U: units

from __future__ import annotations

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.graph import Channels, ComputationalGraph
from gnnrl.pruning.importance import Importance


def ordered(graph: ComputationalGraph, importance: Importance) -> tuple[np.ndarray, np.ndarray]:
    """Units of every group, most important first `[U]`, and how many must stay of each `[G]`.

    Where operations read different parts of a group (after a split), the channels that leave
    none of them without any come first.  Ties go by index.
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
    needed = {unit for units in core for unit in units}
    for runs in graph.axes:
        units = Channels(0, runs).units
        if len(units) and (units >= 0).all() and not needed.intersection(units.tolist()):
            best = int(units[rank[units].argmin()])
            core[owner[best]].append(best)
            needed.add(best)
    parts = [
        np.concatenate([first, order[~np.isin(order, first)]])
        for first, order in zip(core, ranked, strict=True)
    ]
    return np.concatenate(parts), np.array([len(first) for first in core])
