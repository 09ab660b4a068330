"""Time every operation of a network at several widths: the rows of a latency table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.latency import POINTS, LatencyTable, keys, sources, width
from gnnrl.measurement.latency import median_milliseconds


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
        for point, median in median_milliseconds(runs, rounds, 1, torch.device("cpu")).items():
            times[point] = median
        if tied:
            times = np.maximum.outer(np.diag(times), np.diag(times))
        times = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
        grids[key] = tuple(tuple(round(float(v), 5) for v in row) for row in times)
    return LatencyTable(grids, batch_size, machine)


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
