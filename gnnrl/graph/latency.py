"""Latency of a plan without running it: a table of what each operation takes at several widths.

The table is measured once per machine and kept as a file; given the table, latency is a number
like flops, and a budget of latency is deterministic.
"""

# n: operations   P: widths measured on each side of an operation

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph, Node

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
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read what `save` wrote."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            grids = {
                key: tuple(tuple(float(v) for v in row) for row in grid)
                for key, grid in content["milliseconds"].items()
            }
            return cls(grids, int(content["batch_size"]), str(content["machine"]))
        except FileNotFoundError:
            raise UserError(
                f"{path}: no latency table here; measure one with `python -m stages.latency`"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
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


def measure(graph: ComputationalGraph, batch_size: int, rounds: int, machine: str) -> LatencyTable:
    """Time every different operation of a graph at `POINTS` x `POINTS` widths.

    The median of `rounds`; widths take turns, so that what else the machine does falls on all.
    """
    nodes = {key: i for i, key in enumerate(keys(graph)) if key}
    grids: dict[str, tuple[tuple[float, ...], ...]] = {}
    for key, i in nodes.items():
        node, (inputs, outputs) = graph.nodes[i], _widths(graph, i)
        tied = _tied(node)
        times = np.zeros((POINTS, POINTS))
        points = [(a, b) for a in range(POINTS) for b in range(POINTS) if not tied or a == b]
        runs = {
            (a, b): _run(graph, i, width(inputs, a), width(outputs, b), batch_size)
            for a, b in points
        }
        taken: dict[tuple[int, int], list[float]] = {point: [] for point in points}
        for turn in range(rounds + 1):
            for point, run in runs.items():
                start = time.perf_counter()
                run()
                if turn:
                    taken[point].append(1000 * (time.perf_counter() - start))
        for (a, b), values in taken.items():
            times[a, b] = statistics.median(values)
        if tied:
            times = np.maximum.outer(np.diag(times), np.diag(times))
        times = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
        grids[key] = tuple(tuple(round(float(v), 5) for v in row) for row in times)
    return LatencyTable(grids, batch_size, machine)


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
    """What tells operations apart that take different times; empty: takes none."""
    return [_key(graph, i) for i in range(len(graph.nodes))]


def sources(graph: ComputationalGraph) -> list[int]:
    """Which operation each one reads (its first input; itself where it reads none)."""
    index = {n.name: i for i, n in enumerate(graph.nodes)}
    return [index.get(n.inputs[0], i) if n.inputs else i for i, n in enumerate(graph.nodes)]


def _key(graph: ComputationalGraph, i: int) -> str:
    node = graph.nodes[i]
    if node.operation not in ("conv", "linear", "norm", "activation", "add", "mul", "pool"):
        return ""
    source = graph.nodes[sources(graph)[i]]
    written = {k: v for k, v in node.attributes.items() if k not in ("type", "num_groups")}
    return json.dumps([node.operation, source.shape, node.shape, written], sort_keys=True)


def _widths(graph: ComputationalGraph, i: int) -> tuple[int, int]:
    def size(node: Node) -> int:
        return node.shape[node.channels.axis - 1] if node.channels is not None else node.shape[0]

    return size(graph.nodes[sources(graph)[i]]), size(graph.nodes[i])


def _tied(node: Node) -> bool:
    """Writes as many channels as it reads."""
    depthwise = node.operation == "conv" and int(node.attributes.get("groups", 1)) > 1
    return depthwise or node.operation not in ("conv", "linear")


def _run(
    graph: ComputationalGraph, i: int, inputs: int, outputs: int, batch: int
) -> Callable[[], Any]:
    """An operation of these widths, ready to be timed."""
    node, source = graph.nodes[i], graph.nodes[sources(graph)[i]]
    shape = list(source.shape)
    axis = source.channels.axis - 1 if source.channels is not None else 0
    shape[axis] = inputs
    x = torch.randn(batch, *shape)
    if node.operation == "conv":
        groups = inputs if int(node.attributes.get("groups", 1)) > 1 else 1
        written = {k: node.attributes[k] for k in ("stride", "padding", "dilation")}
        kernel = tuple(node.attributes["kernel_size"])
        layer: nn.Module = nn.Conv2d(
            inputs, inputs if groups > 1 else outputs, kernel, groups=groups, **written
        )
    elif node.operation == "linear":
        layer = nn.Linear(inputs, outputs)
    elif node.operation == "norm" and len(shape) == 3:
        layer = nn.BatchNorm2d(inputs).eval()
    elif node.operation == "pool" and math.prod(node.shape[1:]) == 1 and len(shape) == 3:
        layer = nn.AdaptiveAvgPool2d(1)
    elif node.operation in ("add", "mul"):
        return torch.inference_mode()(lambda: x + x)
    else:
        return torch.inference_mode()(lambda: F.relu(x))
    return torch.inference_mode()(lambda: layer(x))
