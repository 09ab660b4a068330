"""Cost as a function of how many channels each group keeps, fast enough for every decision.

Channels of a group go in a fixed order (least important first), so that a count per group says
everything.  For each axis that shrinks, a table tells how many of its indices remain when a group
keeps its best k channels; the length of an axis is a sum of table entries, the cost a sum of
products of lengths.
"""

# G: groups   U: units   A: different axes   P: pairs of an axis and a group on it

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gnnrl.graph.graph import FIXED, Channels, ComputationalGraph, Parameter
from gnnrl.graph.latency import LatencyTable, interpolate, sources


class Widths:
    """Costs of counts.

    order: units of every group, most important first, one group after the other `[U]`.
    table: what operations take, for the resource `latency`.
    """

    def __init__(
        self, graph: ComputationalGraph, order: np.ndarray, table: LatencyTable | None = None
    ) -> None:
        self.graph = graph
        self._sizes = np.array([g.size for g in graph.groups], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._order = order
        self._axes: dict[tuple[tuple[int, int, int], ...], int] = {}
        self._fixed: list[int] = [1]  # axis 0 stands for "no axis": length one
        self._pairs: list[tuple[int, int, np.ndarray]] = []
        flops: dict[str, int] = {}
        self._constant = {"flops": 0, "parameters": 0}
        for node in graph.nodes:
            self._constant["flops"] += node.flops
            if node.positions:
                weight = node.parameters[0]
                flops[weight] = flops.get(weight, 0) + node.positions
        trained = {name: 1 for name, p in graph.parameters.items() if not p.buffer}
        self._products = {"flops": self._product(flops), "parameters": self._product(trained)}
        self._grids = table.grids(graph) if table is not None else None
        writes = [0 if n.channels is None else self.axis(n.channels) for n in graph.nodes]
        self._ends = np.array([[writes[i] for i in sources(graph)], writes])
        offsets = np.cumsum([0, *(len(t) for _, _, t in self._pairs)])
        self._table = np.concatenate([t for _, _, t in self._pairs] or [np.zeros(0)])
        self._offset = offsets[:-1].astype(np.int64)
        self._axis = np.array([a for a, _, _ in self._pairs], dtype=np.int64)
        self._group = np.array([g for _, g, _ in self._pairs], dtype=np.int64)
        self._base = np.array(self._fixed, dtype=np.float64)
        self._whole = self.lengths(self._sizes)

    def cost(self, counts: np.ndarray, resource: str) -> float:
        """Flops, parameters or milliseconds when group g keeps `counts[g]` channels `[G]`."""
        if resource == "latency":
            return self._latency(self.lengths(counts))
        first, second, factor = self._products[resource]
        lengths = self.lengths(counts)
        return self._constant[resource] + float((lengths[first] * lengths[second]) @ factor)

    def lengths(self, counts: np.ndarray) -> np.ndarray:
        """Length of every axis `[A]`."""
        entries = self._table[self._offset + counts[self._group]]
        return self._base + np.bincount(self._axis, entries, len(self._base))

    def _latency(self, lengths: np.ndarray) -> float:
        part = (lengths - 1) / np.maximum(self._whole - 1, 1)
        return interpolate(self._grids, part[self._ends[0]], part[self._ends[1]])

    def axis(self, channels: Channels) -> int:
        """Number of an axis in `lengths`; equal axes share one."""
        if channels.runs not in self._axes:
            self._axes[channels.runs] = len(self._fixed)
            units = channels.units
            self._fixed.append(int((units == FIXED).sum()))
            uses = np.bincount(units[units >= 0], minlength=self._starts[-1])
            for group in range(len(self._sizes)):
                mine = slice(self._starts[group], self._starts[group + 1])
                if uses[mine].any():
                    table = np.concatenate([[0], np.cumsum(uses[self._order[mine]])])
                    self._pairs.append((self._axes[channels.runs], group, table.astype(float)))
        return self._axes[channels.runs]

    def _product(self, weights: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cost = sum of factor x length of one axis x length of another."""
        rows = [self._terms(self.graph.parameters[name], n) for name, n in weights.items()]
        first, second, factor = zip(*rows, strict=True) if rows else ((), (), ())
        return np.array(first, int), np.array(second, int), np.array(factor, float)

    def _terms(self, parameter: Parameter, uses: int) -> tuple[int, int, float]:
        shrinking = {c.axis: self.axis(c) for c in parameter.channels}
        if len(shrinking) > 2:
            raise ValueError(
                f"a parameter with {len(shrinking)} shrinking axes, expected at most 2"
            )
        rest = [n for k, n in enumerate(parameter.shape) if k not in shrinking]
        first, second = [*shrinking.values(), 0, 0][:2]
        return first, second, float(uses * math.prod(rest))
