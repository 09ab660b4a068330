"""A latency table of a network: single operations, then whole subnets that correct their sum.

An operation that runs alone is not as fast as within a network: calls, copies and caches differ.
So subnets of several widths and depths are timed in the same runtime, and the times of operations
with weights, the times of all others and an overhead are fitted to them.
"""

# S: subnets

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable, by_kind
from gnnrl.graph.removal import removable_units, without
from gnnrl.graph.unit_mapping import kept_filters
from gnnrl.measurement.latency import time_networks
from gnnrl.measurement.operation_latency import measure
from gnnrl.measurement.runtimes import device_of, machine_of
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device as own_device
from gnnrl.runtime import generator
from gnnrl.shapes import as_shape

RATIOS = (1.0, 0.75, 0.5, 0.25)
"""Of the channels of every group, in the first subnets; the others are random."""

LEAST = 0.02
"""Smallest factor of the times of single operations."""

HEAVY = ("conv", "linear")
"""Operations whose times are corrected together; all others are, too."""


def table_of(
    surgeon: Surgeon,
    batch_size: int,
    rounds: int,
    runtime: str = "torch",
    threads: int | None = None,
    subnets: int = 12,
    multiple: int | None = None,
) -> LatencyTable:
    """Measure a latency table of a network on this machine.

    rounds: of single operations; whole subnets pass four times as many.  subnets: that correct the
    sum of the operations; 0: it is not corrected.  multiple: as `measure` has it.
    """
    machine = machine_of(device_of(runtime, own_device()))
    graph = surgeon.graph
    table = measure(graph, batch_size, rounds, machine, runtime, threads, multiple)
    if subnets == 0:
        return table
    plans = plans_of(graph, subnets, table.multiple)
    networks = {i: surgeon.cut(plan) for i, plan in enumerate(plans)}
    shape = as_shape(graph.input_shape)
    timings = time_networks(networks, shape, batch_size, 4 * rounds, runtime, threads)
    taken = np.array([timings[i].milliseconds for i in networks])
    return corrected(table, graph, plans, taken)


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

    Widths are multiples of `multiple`; no budget limits them.
    """
    rng, units = generator(seed, "latency subnets"), removable_units(graph)
    plans = []
    for i in range(number):
        share = torch.rand((), generator=rng) if i >= len(RATIOS) and i % 2 else 0.0
        gone = torch.rand(len(units), generator=rng) < share / 2
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

    Non-negative least squares: one factor for the operations with weights, one for all others, and
    the overhead.
    """
    from scipy.optimize import nnls

    parts = [by_kind(graph, table, plan) for plan in plans]
    heavy = np.array([sum(part.get(kind, 0.0) for kind in HEAVY) for part in parts])
    light = np.array([sum(part.values()) for part in parts]) - heavy
    columns = np.stack([np.ones(len(plans)), heavy, light], axis=1)
    weights, _ = nnls(columns / taken[:, None], np.ones(len(plans)))
    overhead, *factors = weights
    factors = np.maximum(factors, LEAST)
    error = np.median(np.abs(columns @ [overhead, *factors] / taken - 1.0))
    grids = {}
    for key, rows in table.milliseconds.items():
        factor = factors[0 if json.loads(key)[0] in HEAVY else 1]
        grids[key] = tuple(tuple(round(float(factor * v), 6) for v in row) for row in rows)
    return replace(
        table, milliseconds=grids, overhead=round(float(overhead), 6), error=round(float(error), 4)
    )
