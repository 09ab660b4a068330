"""Cost as a function of how many channels each group keeps, fast enough for every decision.

Channels of a group are removed in a fixed order (least important first), so that a count per group
determines the plan.  For each axis that shrinks, a table gives how many of its indices remain when
a group keeps its best k channels; the length of an axis is a sum of table entries.
"""

# G: groups   U: units   A: different axes

from __future__ import annotations

import numpy as np

from gnnrl.graph.cost_model import CostModel
from gnnrl.graph.graph import FIXED, ComputationalGraph


class GroupCosts:
    """Cost of channel counts.

    order: units of every group, most important first, one group after the other `[U]`.
    model: the cost by the lengths of axes.
    """

    def __init__(self, graph: ComputationalGraph, order: np.ndarray, model: CostModel) -> None:
        self._model = model
        ends = np.cumsum([0, *(group.size for group in graph.groups)])
        tables: list[np.ndarray] = []  # one for each pair of an axis and a group on it
        pairs: list[tuple[int, int]] = []
        for number, axis in enumerate(model.axes):
            uses = np.bincount(axis.units[axis.units >= 0], minlength=graph.num_units)
            for group in range(len(graph.groups)):
                mine = slice(ends[group], ends[group + 1])
                if uses[mine].any():
                    tables.append(np.concatenate([[0.0], np.cumsum(uses[order[mine]])]))
                    pairs.append((number, group))
        self._table = np.concatenate([*tables, np.zeros(0)])
        self._start = np.cumsum([0, *map(len, tables)])[:-1]
        self._axis, self._group = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        self._fixed = np.array([(axis.units == FIXED).sum() for axis in model.axes], np.float64)

    def cost(self, counts: np.ndarray) -> float:
        """Cost, in the unit of the model, when group g keeps `counts[g]` channels `[G]`."""
        return float(self._model.of_lengths(self.lengths(counts)))

    def lengths(self, counts: np.ndarray) -> np.ndarray:
        """Length of every axis `[A]` when group g keeps `counts[g]` channels `[G]`."""
        entries = self._table[self._start + counts[self._group]]
        return self._fixed + np.bincount(self._axis, entries, len(self._fixed))
