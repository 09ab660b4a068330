"""Latency of a plan without running it: a table of what each operation takes at several widths.

The table is measured once for a device, runtime, batch size and number of threads, and kept as a
file; given the table, latency is a number like flops, and a budget of latency is deterministic.
Latency = what every run takes (`overhead`) + the sum over operations, bent: a small network is
slower or faster than its operations, because caches hold more of it and calls weigh more.
"""

# n: operations   P: widths measured on each side of an operation   A: different axes

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from gnnrl.errors import UserError
from gnnrl.files import atomic_write, read_json
from gnnrl.graph.cost import Plan, reduced
from gnnrl.graph.cost_model import Axes, full_length, kept_length, units_before
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.operations import operation_of
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.sealed import opened, sealed

POINTS = 5
"""Widths at which an operation is measured, from one channel to all."""

FIRST = ("milliseconds", "batch_size", "machine")
"""Fields that every table has."""


def bent(total: Any, whole: float, bend: float) -> Any:
    """Return the milliseconds of networks whose operations take so long in sum, of which the whole
    network takes `whole`."""
    return whole * (total / whole) ** bend


@dataclass(frozen=True)
class LatencyTable:
    """milliseconds: key of an operation → `[P][P]`, rows: width of what it reads, columns: of
    what it writes.  They never fall with the width.  batch_size: images measured at once.
    machine: what it was measured on, for people.  runtime, device, threads: what ran it, where.

    multiple: kernels compute whole blocks of so many channels; other widths take the time of the
    next multiple, times `ragged`.  fused: operations that take no time behind others.  overhead:
    milliseconds of a run besides its operations.  bend: exponent of the sum of all this as a part
    of `whole`, the milliseconds of the whole network; where that is 0, nothing is bent.  error:
    median relative error of the predicted latency of whole subnets that were measured, spread:
    interquartile range of the times of one over their median, the median of all; None: none were.
    """

    milliseconds: Mapping[str, tuple[tuple[float, ...], ...]]
    batch_size: int
    machine: str
    runtime: str = "torch"
    device: str = "cpu"
    threads: int = 1
    multiple: int = 1
    ragged: float = 1.0
    overhead: float = 0.0
    bend: float = 1.0
    whole: float = 0.0
    fused: tuple[str, ...] = ()
    error: float | None = None
    spread: float | None = None

    def latency(self, operations: float) -> float:
        """Return the milliseconds of a network whose operations take so many one by one."""
        total = self.overhead + operations
        return bent(total, self.whole, self.bend) if self.whole else total

    def noise(self, above: float) -> str:
        """Return a warning if the machine was busy when the table was made, else nothing."""
        if self.spread is None or self.spread <= above:
            return ""
        return (
            f"noisy machine: the times that the latency table was made of have a spread of "
            f"{100 * self.spread:.0f} %, above {100 * above:.0f} %: measure it again when nothing "
            "else runs"
        )

    def save(self, path: str | Path) -> None:
        """Write the table as JSON."""
        content = {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "milliseconds": {k: self.milliseconds[k] for k in sorted(self.milliseconds)},
        }
        atomic_write(path, f"{json.dumps(sealed(content), indent=1)}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read what `save` wrote; refuse times that are no numbers above 0 or fall with widths."""
        try:
            content = opened(read_json(path))
            grids = {key: _grid(key, grid) for key, grid in content["milliseconds"].items()}
            return cls(grids, int(content["batch_size"]), str(content["machine"]), **_rest(content))
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
            if graph.nodes[i].operation in self.fused:
                continue
            if key and key not in self.milliseconds:
                raise UserError(
                    f"the latency table has no entry for {graph.nodes[i].name!r} ({key}); measure "
                    "a table of this network with `python -m stages.latency`"
                )
            if key:
                found[i] = self.milliseconds[key]
        return found

    def refuse_other(self, path: str | Path = "latency_table", **wanted: object) -> None:
        """Raise `UserError` where it was not measured for what is wanted, such as a runtime."""
        for name, value in wanted.items():
            found = getattr(self, name)
            if value is not None and value != found:
                raise UserError(
                    f"{path}: the table is of {name} {found}, but search.latency_for.{name} is "
                    f"{value}; measure a table of it with `python -m stages.latency`, or name it"
                )


class LatencyCosts:
    """Milliseconds of a graph by the lengths of its axes, a `CostModel`."""

    def __init__(self, graph: ComputationalGraph, table: LatencyTable) -> None:
        axes = Axes()
        writes = [axes.number(node.channels) for node in graph.nodes]
        self.axes, self.table = axes.all, table
        self._names = [node.name for node in graph.nodes]
        self._grids = table.grids(graph)
        self._reads = np.array([writes[i] for i in graph.sources])
        self._writes = np.array(writes)
        self._whole = np.array([full_length(axis) for axis in self.axes])
        self._knots = np.array([knots(whole, table.multiple) for whole in self._whole.tolist()])

    def of_lengths(self, lengths: np.ndarray) -> float:
        """Milliseconds of the network when the axes have these lengths `[A]`."""
        return self.table.latency(float(self.by_operation(lengths).sum()))

    def by_operation(self, lengths: np.ndarray) -> np.ndarray:
        """Milliseconds `[n]`, interpolated bilinearly, when the axes have these lengths `[A]`."""
        m = self.table.multiple
        if m == 1:
            part = (lengths - 1) / np.maximum(self._whole - 1, 1)
            return interpolate(self._grids, part[self._reads], part[self._writes])
        whole = np.minimum(np.ceil(lengths / m) * m, self._whole)
        part = _place(self._knots, whole)
        times = interpolate(self._grids, part[self._reads], part[self._writes])
        ragged = (lengths % m != 0) & (lengths < self._whole)
        odd = ragged[self._reads] | ragged[self._writes]
        return np.where(odd, self.table.ragged, 1.0) * times

    def without(self, operations: Collection[str]) -> float:
        """Milliseconds of the whole network when these operations are taken out."""
        gone = set(operations)
        stays = np.array([name not in gone for name in self._names])
        return self.table.latency(float(self._grids[stays, -1, -1].sum()))


def predicted(graph: ComputationalGraph, table: LatencyTable, plan: Plan) -> float:
    """Return the milliseconds of the subnet that a plan leaves."""
    return table.latency(sum(by_key(graph, table, plan).values()))


def by_key(graph: ComputationalGraph, table: LatencyTable, plan: Plan) -> dict[str, float]:
    """Return the milliseconds of the operations of a plan's subnet by `keys`, one by one."""
    graph = reduced(graph, plan)
    costs, before = LatencyCosts(graph, table), units_before(kept_units(graph, plan.kept))
    lengths = np.array([kept_length(axis, before) for axis in costs.axes])
    found: dict[str, float] = {}
    for key, time in zip(keys(graph), costs.by_operation(lengths).tolist(), strict=True):
        found[key] = found.get(key, 0.0) + time
    return found


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


def _rest(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that older tables do not have, as far as they are given; refuse nonsense."""
    names = [field.name for field in fields(LatencyTable) if field.name not in FIRST]
    found = {name: content[name] for name in names if name in content}
    kinds = {"runtime": str, "device": str, "threads": int, "multiple": int, "fused": list}
    for name, value in found.items():
        kind = kinds.get(name, (int, float))
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits and not (name in ("error", "spread") and value is None):
            raise UserError(f"{name} is {value!r}")
        least = {"threads": 1, "multiple": 1, "ragged": 1.0, "bend": 0.5}.get(name, 0)
        if isinstance(value, int | float) and not least <= value < np.inf:
            raise UserError(f"{name} is {value}, expected at least {least}")
    return {**found, "fused": tuple(map(str, found.get("fused", ())))}


def knots(channels: int, multiple: int = 1) -> np.ndarray:
    """Widths `[P]` between which a time is interpolated: from one channel, or one block, to all."""
    points = np.arange(POINTS) / (POINTS - 1)
    if multiple == 1 or channels <= multiple:
        return 1 + (channels - 1) * points
    blocks = -(-channels // multiple)
    return np.minimum(multiple * np.round(1 + (blocks - 1) * points), channels)


def _place(knots: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where each length `[A]` is between its knots `[A, P]`, in [0, 1]; the last of equal knots."""
    below = np.clip((knots <= lengths[:, None]).sum(1) - 1, 0, POINTS - 2)
    rows = np.arange(len(knots))
    low, high = knots[rows, below], knots[rows, below + 1]
    inside = np.clip((lengths - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    return (below + np.where(high > low, inside, 1.0)) / (POINTS - 1)


def interpolate(grids: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The bilinear value of each operation `[n]`; rows, columns in [0, 1] `[n]`."""
    total = np.zeros(len(grids))
    x, y = rows * (POINTS - 1), columns * (POINTS - 1)
    i, j = np.minimum(x.astype(int), POINTS - 2), np.minimum(y.astype(int), POINTS - 2)
    x, y, n = x - i, y - j, np.arange(len(grids))
    for di, wx in ((0, 1 - x), (1, x)):
        for dj, wy in ((0, 1 - y), (1, y)):
            total += grids[n, i + di, j + dj] * wx * wy
    return total


def width(channels: int, point: int, multiple: int = 1) -> int:
    """Number of channels at a point of the grid."""
    return round(float(knots(channels, multiple)[point]))


def keys(graph: ComputationalGraph) -> list[str]:
    """A text for each operation, the same for those that take the same time; empty: none."""
    pairs = zip(graph.nodes, graph.sources, strict=True)
    return [_key(node, graph.nodes[source]) for node, source in pairs]


def _key(node: Node, source: Node) -> str:
    if operation_of(node).timed is None:
        return ""
    written = {k: v for k, v in node.attributes.items() if k not in ("type", "num_groups")}
    return json.dumps([node.operation, source.shape, node.shape, written], sort_keys=True)
