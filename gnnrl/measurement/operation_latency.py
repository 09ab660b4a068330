"""Time every operation of a network at several widths: the rows of a latency table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.latency import POINTS, LatencyTable, keys, width
from gnnrl.graph.operations import operation_of
from gnnrl.measurement.latency import median_milliseconds


def measure(graph: ComputationalGraph, batch_size: int, rounds: int, machine: str) -> LatencyTable:
    """Time every different operation of a graph at `POINTS` x `POINTS` widths.

    The median of `rounds`; widths take turns, so that other load on the machine affects all alike.
    """
    nodes = {key: i for i, key in enumerate(keys(graph)) if key}
    grids: dict[str, tuple[tuple[float, ...], ...]] = {}
    for key, i in nodes.items():
        node, source = graph.nodes[i], graph.nodes[graph.sources[i]]
        tied = _tied(node)
        times = np.zeros((POINTS, POINTS))
        points = [(a, b) for a in range(POINTS) for b in range(POINTS) if not tied or a == b]
        runs = {
            (a, b): _run(node, source, width(source.width, a), width(node.width, b), batch_size)
            for a, b in points
        }
        for point, median in median_milliseconds(runs, rounds, 1, torch.device("cpu")).items():
            times[point] = median
        if tied:
            times = np.maximum.outer(np.diag(times), np.diag(times))
        times = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
        grids[key] = tuple(tuple(round(float(v), 5) for v in row) for row in times)
    return LatencyTable(grids, batch_size, machine)


def _tied(node: Node) -> bool:
    """Whether it writes as many channels as it reads."""
    depthwise = node.operation == "conv" and int(node.attributes.get("groups", 1)) > 1
    return depthwise or not operation_of(node).mixes_channels


def _run(
    node: Node, source: Node, inputs: int, outputs: int, batch_size: int
) -> Callable[[], object]:
    """An operation of these widths, ready to be timed."""
    shape = list(source.shape)
    shape[0 if source.channels is None else source.channels.axis - 1] = inputs
    x = torch.randn(batch_size, *shape)
    timed = operation_of(node).timed
    assert timed is not None
    run = timed(node, x, outputs)
    return torch.inference_mode()(lambda: run(x))
