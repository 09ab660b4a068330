"""A latency table of a network: single operations, then whole subnets that correct their sum.

An operation that runs alone is not as fast as within a network: calls, copies and caches differ.
So subnets of several widths and depths are timed in the same runtime, and eight numbers are fitted
to them: an overhead; what a call takes, and a factor for what an operation takes beyond the
shortest call, both for each kind of operation; and how the sum bends between the whole network and
a small one.
"""

# S: subnets   K: kinds of operations

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable, bent, by_key
from gnnrl.graph.removal import removable_units, without
from gnnrl.graph.unit_mapping import kept_filters
from gnnrl.measurement.latency import time_networks
from gnnrl.measurement.operation_latency import measure
from gnnrl.measurement.running import machine_of, runs_on
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device as own_device
from gnnrl.runtime import generator
from gnnrl.shapes import as_shape

RATIOS = (1.0, 0.75, 0.5, 0.25)
"""Of the channels of every group, in the first subnets; the others are random."""

LEAST = 0.02
"""Smallest factor of a call, and of what an operation takes beyond it."""

BENDS = np.linspace(0.7, 1.5, 81)
"""Exponents that are tried for the sum of a subnet's times."""

KINDS = ("dense", "grouped", "other")
"""Operations whose times are corrected together: convolutions and linear layers; convolutions of
several groups, which move much and compute little; all others."""


def table_of(
    surgeon: Surgeon,
    batch_size: int,
    rounds: int,
    runtime: str = "torch",
    threads: int | None = None,
    subnets: int = 16,
    multiple: int | None = None,
) -> LatencyTable:
    """Measure a latency table of a network on this machine.

    rounds: of single operations; whole subnets pass four times as many.  subnets: that correct the
    sum of the operations; 0: it is not corrected.  multiple: as `measure` has it.
    """
    machine = machine_of(runs_on(runtime, own_device()))
    graph = surgeon.graph
    table = measure(graph, batch_size, rounds, machine, runtime, threads, multiple)
    if subnets == 0:
        return table
    plans = plans_of(graph, subnets, table.multiple)
    networks = {i: surgeon.cut(plan) for i, plan in enumerate(plans)}
    shape = as_shape(graph.input_shape)
    bar = f"latency of subnets in {runtime}"
    timings = time_networks(networks, shape, batch_size, 4 * rounds, runtime, threads, bar)
    taken = np.array([timings[i].milliseconds for i in networks])
    spread = np.median([timings[i].spread for i in networks])
    return replace(corrected(table, graph, plans, taken), spread=round(float(spread), 4))


def about(table: LatencyTable) -> str:
    """Return in one line what a table was made on, and how well it predicts whole subnets."""
    fit = "" if table.error is None else f", whole subnets within {100 * table.error:.1f} %"
    return (
        f"{len(table.milliseconds)} operations at {table.batch_size} images in {table.runtime} on "
        f"{table.device} {table.machine}, threads: {table.threads}, widths in multiples of "
        f"{table.multiple}{fit}"
    )


def plans_of(
    graph: ComputationalGraph, number: int, multiple: int, seed: int = 0
) -> list[PruningPlan]:
    """Return different plans of a network: the whole, uniform ones, and random widths and depths.

    Widths are multiples of `multiple`; every second one lacks blocks, any share of them; no budget
    limits them.
    """
    rng, units = generator(seed, "latency subnets"), removable_units(graph)
    plans = []
    for i in range(number):
        share = torch.rand((), generator=rng) if i >= len(RATIOS) and i % 2 else 0.0
        gone = torch.rand(len(units), generator=rng) < share
        removed = [name for name, out in zip(units, gone.tolist(), strict=True) if out]
        left = without(graph, removed)
        ratios = torch.rand(len(left.groups), generator=rng, dtype=torch.float64)
        ratios = torch.full_like(ratios, RATIOS[i]) if i < len(RATIOS) else 0.15 + 0.85 * ratios
        plans.append(replace(_cut(left, ratios, multiple), removed_layers=frozenset(removed)))
    return plans


def _cut(graph: ComputationalGraph, ratios: Tensor, multiple: int) -> PruningPlan:
    """Return the plan of about these keep ratios `[G]`, whatever it costs."""
    keep = np.zeros(graph.num_units, dtype=bool)
    for group, ratio in zip(graph.groups, ratios.tolist(), strict=True):
        count = min(multiple * max(1, round(ratio * group.size / multiple)), group.size)
        keep[group.start + np.arange(count) * group.size // count] = True
    return PruningPlan(kept_filters(graph, keep))


def corrected(
    table: LatencyTable, graph: ComputationalGraph, plans: list[PruningPlan], taken: np.ndarray
) -> LatencyTable:
    """Return the table fitted to the milliseconds `[S]` of whole subnets, relative errors counted.

    Non-negative least squares for every bend, of which the best is taken.  The first, the whole
    network, counts as much as all others: budgets are fractions of its time.  The shortest time of
    the table stands for a call: it is counted apart, because calls cost less within a network than
    alone.
    """
    from scipy.optimize import nnls

    call = min(min(map(min, rows)) for rows in table.milliseconds.values())
    calls = _times(table, lambda key, time: call)
    beyond = _times(table, lambda key, time: time - call)
    sums = np.array([[*_sums(graph, calls, p), *_sums(graph, beyond, p)] for p in plans])
    columns = np.concatenate([np.ones((len(plans), 1)), sums], axis=1)
    counts = np.ones(len(plans))
    counts[0] = max(1.0, np.sqrt(len(plans) - 1))
    whole, best = taken[0], np.inf
    for tried in BENDS:
        straight = bent(taken, whole, 1 / tried)
        found, _ = nnls(columns * (counts / straight)[:, None], counts)
        found[1:] = np.maximum(found[1:], LEAST)
        off = np.abs(bent(columns @ found, whole, tried) / taken - 1.0)
        if (missed := float(np.square(counts * off).sum())) < best:
            best, bend, weights, error = missed, tried, found, np.median(off)
    overhead = weights[0]
    prices = dict(zip(KINDS, weights[1 : 1 + len(KINDS)], strict=True))
    factors = dict(zip(KINDS, weights[1 + len(KINDS) :], strict=True))

    def within(key: str, time: float) -> float:
        kind = kind_of(key)
        return round(float(prices[kind] * call + factors[kind] * (time - call)), 6)

    return replace(
        _times(table, within),
        overhead=round(float(overhead), 6),
        bend=round(float(bend), 4),
        whole=round(float(whole), 6),
        error=round(float(error), 4),
    )


def _times(table: LatencyTable, time_of: Callable[[str, float], float]) -> LatencyTable:
    """Return the table with other times, by the key of the operation and its time."""
    grids = {
        key: tuple(tuple(time_of(key, time) for time in row) for row in rows)
        for key, rows in table.milliseconds.items()
    }
    return replace(table, milliseconds=grids)


def _sums(graph: ComputationalGraph, table: LatencyTable, plan: PruningPlan) -> list[float]:
    """The milliseconds `[K]` of a plan's subnet."""
    sums = dict.fromkeys(KINDS, 0.0)
    for key, time in by_key(graph, table, plan).items():
        if key:
            sums[kind_of(key)] += time
    return list(sums.values())


def kind_of(key: str) -> str:
    """Return the kind of an operation by its key in a table."""
    operation, *_, attributes = json.loads(key)
    if operation == "conv" and int(attributes.get("groups", 1)) > 1:
        return "grouped"
    return "dense" if operation in ("conv", "linear") else "other"
