"""Latency of a plan without running it: a table of what each operation takes at several widths.

The table is measured once per machine and kept as a file; given the table, latency is a number
like flops, and a budget of latency is deterministic.
"""

# n: operations   P: widths measured on each side of an operation   A: different axes

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnnrl.errors import UserError
from gnnrl.files import atomic_write, read_json
from gnnrl.graph.cost_model import Axes, full_length
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.operations import operation_of
from gnnrl.sealed import opened, sealed

POINTS = 5
"""Widths at which an operation is measured, from one channel to all."""


@dataclass(frozen=True)
class LatencyTable:
    """milliseconds: key of an operation → `[P][P]`, rows: width of what it reads, columns: of
    what it writes.  They never fall with the width.  batch_size: images measured at once.
    machine: what it was measured on, for people."""

    milliseconds: Mapping[str, tuple[tuple[float, ...], ...]]
    batch_size: int
    machine: str

    def save(self, path: str | Path) -> None:
        """Write the table as JSON."""
        content = {
            "machine": self.machine,
            "batch_size": self.batch_size,
            "milliseconds": {k: self.milliseconds[k] for k in sorted(self.milliseconds)},
        }
        atomic_write(path, f"{json.dumps(sealed(content), indent=1)}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read what `save` wrote; refuse times that are no numbers above 0 or fall with widths."""
        try:
            content = opened(read_json(path))
            grids = {key: _grid(key, grid) for key, grid in content["milliseconds"].items()}
            return cls(grids, int(content["batch_size"]), str(content["machine"]))
        except FileNotFoundError:
            raise UserError(
                f"{path}: no latency table here; measure one with `python -m stages.latency`"
            ) from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{path}: not a latency table ({error}); measure it again with "
                "`python -m stages.latency`"
            ) from None

    def grids(self, graph: ComputationalGraph) -> np.ndarray:
        """What each operation of a graph takes `[n, P, P]`, zeros where it takes nothing."""
        found = np.zeros((len(graph.nodes), POINTS, POINTS))
        for i, key in enumerate(keys(graph)):
            if key and key not in self.milliseconds:
                raise UserError(
                    f"the latency table has no entry for {graph.nodes[i].name!r} ({key}); measure "
                    "a table of this network with `python -m stages.latency`"
                )
            if key:
                found[i] = self.milliseconds[key]
        return found


class LatencyCosts:
    """Milliseconds of a graph by the lengths of its axes, a `CostModel`."""

    def __init__(self, graph: ComputationalGraph, table: LatencyTable) -> None:
        axes = Axes()
        writes = [axes.number(node.channels) for node in graph.nodes]
        self.axes = axes.all
        self._grids = table.grids(graph)
        self._reads = np.array([writes[i] for i in graph.sources])
        self._writes = np.array(writes)
        self._whole = np.array([full_length(axis) for axis in self.axes])

    def of_lengths(self, lengths: np.ndarray) -> float:
        """Sum over operations, interpolated bilinearly, when the axes have these lengths `[A]`."""
        part = (lengths - 1) / np.maximum(self._whole - 1, 1)
        return interpolate(self._grids, part[self._reads], part[self._writes])


def _grid(key: str, rows: Any) -> tuple[tuple[float, ...], ...]:
    lists = isinstance(rows, list) and all(isinstance(row, list) for row in rows)
    if not lists or any(type(v) not in (int, float) for row in rows for v in row):
        raise UserError(f"the times of {key} are no lists of numbers")
    grid = np.array(rows, dtype=float) if len({len(row) for row in rows}) == 1 else np.zeros(0)
    if grid.shape != (POINTS, POINTS):
        raise UserError(f"the times of {key} are not {POINTS} x {POINTS}")
    if not (np.isfinite(grid).all() and (grid >= 0).all() and grid[-1, -1] > 0):
        raise UserError(f"a time of {key} is not a number above 0")
    if (np.diff(grid, axis=0) < 0).any() or (np.diff(grid, axis=1) < 0).any():
        raise UserError(f"the times of {key} fall where its width grows")
    return tuple(tuple(float(v) for v in row) for row in rows)


def interpolate(grids: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """Sum over operations of the bilinear value; rows, columns in [0, 1] `[n]`."""
    total = np.zeros(len(grids))
    x, y = rows * (POINTS - 1), columns * (POINTS - 1)
    i, j = np.minimum(x.astype(int), POINTS - 2), np.minimum(y.astype(int), POINTS - 2)
    x, y, n = x - i, y - j, np.arange(len(grids))
    for di, wx in ((0, 1 - x), (1, x)):
        for dj, wy in ((0, 1 - y), (1, y)):
            total += grids[n, i + di, j + dj] * wx * wy
    return float(total.sum())


def width(channels: int, point: int) -> int:
    """Number of channels at a point of the grid."""
    return 1 + round((channels - 1) * point / (POINTS - 1))


def keys(graph: ComputationalGraph) -> list[str]:
    """A text for each operation, the same for those that take the same time; empty: none."""
    pairs = zip(graph.nodes, graph.sources, strict=True)
    return [_key(node, graph.nodes[source]) for node, source in pairs]


def _key(node: Node, source: Node) -> str:
    if operation_of(node).timed is None:
        return ""
    written = {k: v for k, v in node.attributes.items() if k not in ("type", "num_groups")}
    return json.dumps([node.operation, source.shape, node.shape, written], sort_keys=True)
