"""Jobs as a directed acyclic graph: tasks with work, edges with the data they pass on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

import numpy as np

from gnnrl.errors import UserError


@dataclass(frozen=True)
class JobGraph:
    """One directed acyclic graph of tasks.

    work: for each task, its amount of work, > 0 (a machine of speed 1 does one unit per second).
    edges: (producer, consumer) pairs of task numbers, each pair once, without cycles.
    data: for each edge, how much the consumer needs from the producer, >= 0.
    """

    work: tuple[float, ...]
    edges: tuple[tuple[int, int], ...] = ()
    data: tuple[float, ...] = ()
    name: str = "jobs"
    order: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_tasks(self.name, self.work)
        _check_edges(self.name, len(self.work), self.edges, self.data)
        object.__setattr__(self, "order", _topological_order(self.name, self.num_tasks, self.edges))

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.work)

    @cached_property
    def parents(self) -> tuple[tuple[tuple[int, float], ...], ...]:
        """For each task, its (producer, data) pairs."""
        return self._neighbours(of=1)

    @cached_property
    def children(self) -> tuple[tuple[tuple[int, float], ...], ...]:
        """For each task, its (consumer, data) pairs."""
        return self._neighbours(of=0)

    def _neighbours(self, of: int) -> tuple[tuple[tuple[int, float], ...], ...]:
        """For each task, (other end, data) of the edges whose end number `of` it is."""
        found: list[list[tuple[int, float]]] = [[] for _ in self.work]
        for edge, size in zip(self.edges, self.data, strict=True):
            found[edge[of]].append((edge[1 - of], size))
        return tuple(tuple(pairs) for pairs in found)


def _check_tasks(name: str, work: Sequence[float]) -> None:
    """Refuse an empty graph and work that is not a positive number."""
    if not work:
        raise UserError(f"{name}: a job graph needs at least one task, got none")
    amounts = np.asarray(work, dtype=float)
    bad = np.flatnonzero(~(np.isfinite(amounts) & (amounts > 0)))
    if bad.size:
        task = int(bad[0])
        raise UserError(f"{name}: work of task {task} must be a number > 0, got {work[task]}")


def _check_edges(
    name: str, num_tasks: int, edges: Sequence[tuple[int, int]], data: Sequence[float]
) -> None:
    """Refuse edges to nowhere, loops, double edges and sizes that are no sizes."""
    if len(edges) != len(data):
        raise UserError(f"{name}: {len(edges)} edges but {len(data)} data sizes (give one an edge)")
    seen: set[tuple[int, int]] = set()
    for (producer, consumer), size in zip(edges, data, strict=True):
        if not (0 <= producer < num_tasks and 0 <= consumer < num_tasks):
            raise UserError(
                f"{name}: edge {producer} -> {consumer} names a task that does not exist "
                f"(tasks are 0 to {num_tasks - 1})"
            )
        if producer == consumer:
            raise UserError(f"{name}: task {producer} cannot wait for itself (remove that edge)")
        if (producer, consumer) in seen:
            raise UserError(f"{name}: edge {producer} -> {consumer} is given twice (add the sizes)")
        if not (np.isfinite(size) and size >= 0):
            raise UserError(f"{name}: data of edge {producer} -> {consumer} is {size}, not >= 0")
        seen.add((producer, consumer))


def _topological_order(
    name: str, num_tasks: int, edges: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """Every task after all of its producers; raises `UserError` for a cycle."""
    sorter = TopologicalSorter[int]({task: () for task in range(num_tasks)})
    for producer, consumer in edges:
        sorter.add(consumer, producer)
    try:
        return tuple(sorter.static_order())
    except CycleError as error:
        cycle = sorted(set(error.args[1]))
        raise UserError(
            f"{name}: tasks {cycle} wait for each other in a cycle (remove an edge)"
        ) from None
