"""Time every operation of a network at several widths: the rows of a latency table."""

# P: widths measured on each side of an operation

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl.graph import cost_model
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.latency import POINTS, LatencyTable, keys, width
from gnnrl.graph.operations import operation_of
from gnnrl.measurement.latency import pinned, time_in_turns
from gnnrl.measurement.running import Run, ready, runs_on
from gnnrl.measurement.runtimes import runtime_of
from gnnrl.progress import progress
from gnnrl.runtime import device as own_device

MULTIPLES = (1, 2, 4, 8, 16, 32)
"""Blocks of channels that kernels may compute at once."""

WASTED = 1.05
"""Rounding a width up to a multiple may take so much more time, on average."""

FEWER = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 20, 24, 25, 31)
"""How many channels fewer than all are timed, to find the multiple."""

COPIED = 2**22
"""Weights of an operation of which copies are timed, at most: a call costs little beside more."""

PROBED = 3
"""Layers, those of most flops, at which the multiple is looked for."""


def measure(
    graph: ComputationalGraph,
    batch_size: int,
    rounds: int,
    machine: str,
    runtime: str = "torch",
    threads: int | None = None,
    multiple: int | None = None,
) -> LatencyTable:
    """Time every different operation of a graph at `POINTS` x `POINTS` widths in a runtime.

    The median of `rounds`; widths take turns, so that other load on the machine affects all alike.
    multiple: widths are measured at multiples of it; None: of what the kernels compute at once,
    found by measurement.  threads: None: as many as PyTorch uses.
    """
    found = runtime_of(runtime)
    alone = found.alone or runtime
    place = runs_on(runtime, own_device())
    with pinned(threads) as count:
        bench = _Bench(graph, batch_size, rounds, alone, place, count)
        blocks, ragged = bench.blocks(multiple)
        timed = {key: i for i, key in enumerate(keys(graph)) if key}
        timed = {k: i for k, i in timed.items() if graph.nodes[i].operation not in found.fused}
        grids = {}
        with progress(f"latency of operations in {runtime}", len(timed)) as bar:
            for key, i in timed.items():
                grids[key] = bench.grid(graph.nodes[i], graph.nodes[graph.sources[i]], blocks)
                bar.advance()
    return LatencyTable(
        grids, batch_size, machine, runtime, place.type, count, blocks, ragged, fused=found.fused
    )


class _Bench:
    """Times single operations of a graph in one runtime."""

    def __init__(
        self,
        graph: ComputationalGraph,
        batch_size: int,
        rounds: int,
        runtime: str,
        place: torch.device,
        threads: int,
    ) -> None:
        self.graph, self.batch_size, self.rounds = graph, batch_size, rounds
        self.runtime, self.place, self.threads = runtime, place, threads

    def grid(self, node: Node, source: Node, multiple: int) -> tuple[tuple[float, ...], ...]:
        """Return the milliseconds of an operation `[P][P]`, made to rise with the widths."""
        reads = [width(source.width, point, multiple) for point in range(POINTS)]
        writes = [width(node.width, point, multiple) for point in range(POINTS)]
        tied = _tied(node)
        pairs = zip(reads, writes, strict=True) if tied else product(reads, writes)
        taken = self.times(node, source, list(dict.fromkeys(pairs)))
        if tied:
            own = np.array([taken[pair] for pair in zip(reads, writes, strict=True)])
            times = np.maximum.outer(own, own)
        else:
            times = np.array([[taken[a, b] for b in writes] for a in reads])
        times = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
        return tuple(tuple(round(float(v), 5) for v in row) for row in times)

    def times(
        self, node: Node, source: Node, pairs: list[tuple[int, int]]
    ) -> dict[tuple[int, int], float]:
        """Return the milliseconds of an operation by how many channels it reads and writes."""
        made = {pair: self._run(node, source, *pair) for pair in pairs}
        runs = {pair: run for pair, (run, _) in made.items()}
        taken = time_in_turns(runs, self.rounds, 1, self.place, warm=False)
        return {pair: timing.milliseconds / made[pair][1] for pair, timing in taken.items()}

    def blocks(self, given: int | None) -> tuple[int, float]:
        """Return the multiple that suits the kernels, and how much longer other widths take.

        The largest to which widths can be rounded up at no cost worth mention, as far as every
        layer that is probed has four blocks of it.  given: the multiple where it is known.
        """
        probes = list(self._probes())
        sizes = [min(node.width, source.width) for node, source in probes]
        most = max([m for m in MULTIPLES if sizes and 4 * m <= statistics.median(sizes)], default=1)
        best, ragged = 1, 1.0
        tried = [given] if given is not None else [m for m in MULTIPLES if 1 < m <= most]
        taken = [self._narrower(node, source, max(tried, default=1)) for node, source in probes]
        for m in tried:
            ratios = [
                times[off - off % m] / times[off]
                for times in taken
                for off in times
                if off % m and off - off % m in times
            ]
            if ratios and (given is not None or statistics.median(ratios) <= WASTED):
                best, ragged = m, max(1.0, 1 / statistics.median(ratios))
        return given or best, round(ragged, 4)

    def _narrower(self, node: Node, source: Node, most: int) -> dict[int, float]:
        """Milliseconds by how many channels fewer are read and written, fewer than `most`."""
        pairs = {off: (source.width - off, node.width - off) for off in FEWER if off < most}
        taken = self.times(node, source, [pair for pair in pairs.values() if min(pair) > 0])
        return {off: taken[pair] for off, pair in pairs.items() if pair in taken}

    def _probes(self) -> Iterator[tuple[Node, Node]]:
        """Yield the convolutions of most flops whose channels can be pruned, with their sources."""
        nodes, flops = self.graph.nodes, cost_model.flops(self.graph)
        pairs = [
            (node, nodes[source])
            for node, source in zip(nodes, self.graph.sources, strict=True)
            if node.operation == "conv" and not _tied(node)
        ]
        pairs = [pair for pair in pairs if all(each.channels is not None for each in pair)]
        distinct = {(n.width, s.width, *n.shape): (n, s) for n, s in pairs}
        ranked = sorted(distinct.values(), key=lambda pair: -flops.of_operation(pair[0].name))
        yield from ranked[:PROBED]

    def _run(self, node: Node, source: Node, inputs: int, outputs: int) -> tuple[Run, int]:
        """An operation of these widths, ready to be timed, and how many copies of it run."""
        shape = list(source.shape)
        shape[0 if source.channels is None else source.channels.axis - 1] = inputs
        x = torch.randn(self.batch_size, *shape, device=self.place)
        timed = operation_of(node).timed
        assert timed is not None
        functions = [timed(node, x, outputs)]
        if 0 < _weights(functions[0]) <= COPIED:
            more = runtime_of(self.runtime).copies - 1
            functions += [timed(node, x, outputs) for _ in range(more)]
        network = _Several(functions)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return ready(self.runtime, network, x, self.threads), len(functions)


class _Several(nn.Module):
    """Functions of one value as a network."""

    def __init__(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(f for f in functions if isinstance(f, nn.Module))
        self.functions = functions

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions)


def _weights(function: Callable[[Tensor], Tensor]) -> int:
    """How many weights a function has."""
    return sum(p.numel() for p in function.parameters()) if isinstance(function, nn.Module) else 0


def _tied(node: Node) -> bool:
    """Whether it writes as many channels as it reads."""
    depthwise = node.operation == "conv" and int(node.attributes.get("groups", 1)) > 1
    return depthwise or not operation_of(node).mixes_channels
