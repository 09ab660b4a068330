"""The machines that tasks run on, and what it costs to send data between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gnnrl.errors import UserError
from gnnrl.scheduling.dag import JobGraph


@dataclass(frozen=True)
class Machines:
    """A set of machines, each connected to each other one.

    speeds: work per second, > 0, one per machine.
    bandwidth: [from][to] data per second, > 0 (the diagonal is not read: staying costs nothing).
    latency: [from][to] seconds before the first data arrive, >= 0 (the diagonal is not read).
    """

    speeds: tuple[float, ...]
    bandwidth: tuple[tuple[float, ...], ...]
    latency: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.speeds)
        if not count:
            raise UserError("machines: at least one machine is needed, got none")
        for name, least in (("bandwidth", "> 0"), ("latency", ">= 0")):
            rows = getattr(self, name)
            if len(rows) != count or any(len(row) != count for row in rows):
                raise UserError(f"machines: {name} must be {count} x {count}, one row a machine")
            off = np.asarray(rows, dtype=float)[~np.eye(count, dtype=bool)]
            good = off > 0 if least == "> 0" else off >= 0
            if not (good & np.isfinite(off)).all():
                raise UserError(f"machines: {name} must be {least} and finite, got {off.tolist()}")
        speeds = np.asarray(self.speeds, dtype=float)
        if not (np.isfinite(speeds) & (speeds > 0)).all():
            raise UserError(f"machines: speeds must be > 0 and finite, got {list(self.speeds)}")

    @classmethod
    def uniform(cls, speeds: tuple[float, ...], bandwidth: float, latency: float) -> Machines:
        """Machines of these speeds, with the same line between any two."""
        count = len(speeds)
        line, delay = ((bandwidth,) * count,) * count, ((latency,) * count,) * count
        return cls(tuple(speeds), line, delay)

    @property
    def count(self) -> int:
        """How many machines there are."""
        return len(self.speeds)


@dataclass(frozen=True)
class Problem:
    """A job graph to be run on machines.

    durations: seconds [task][machine]; empty: work / speed.  Given, it replaces that quotient, for
        machines that suit some tasks better than others (the "unrelated machines" of the papers).
    """

    jobs: JobGraph
    machines: Machines
    durations: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        jobs, machines = self.jobs, self.machines
        if not self.durations:
            rows = tuple(tuple(work / speed for speed in machines.speeds) for work in jobs.work)
            object.__setattr__(self, "durations", rows)
        table = self.duration_table
        if table.shape != (jobs.num_tasks, machines.count):
            raise UserError(
                f"{jobs.name}: durations are {table.shape}, expected "
                f"({jobs.num_tasks} tasks, {machines.count} machines)"
            )
        if not (np.isfinite(table) & (table > 0)).all():
            raise UserError(f"{jobs.name}: durations must be > 0 and finite, got {table.min()}")

    @cached_property
    def duration_table(self) -> np.ndarray:
        """Seconds, [tasks, machines]."""
        return np.asarray(self.durations, dtype=float)

    @cached_property
    def delays(self) -> list[list[float]]:
        """Latency [from][to] with zeros on the diagonal."""
        table = np.array(self.machines.latency, dtype=float)
        np.fill_diagonal(table, 0.0)
        return table.tolist()

    @cached_property
    def seconds_per_datum(self) -> list[list[float]]:
        """1 / bandwidth [from][to] with zeros on the diagonal."""
        table = np.array(self.machines.bandwidth, dtype=float)
        np.fill_diagonal(table, 1.0)
        table = 1.0 / table
        np.fill_diagonal(table, 0.0)
        return table.tolist()

    def transfer(self, size: float, source: int, target: int) -> float:
        """Seconds to bring `size` data from machine `source` to machine `target`."""
        return self.delays[source][target] + size * self.seconds_per_datum[source][target]

    @cached_property
    def mean_delay(self) -> tuple[float, float]:
        """(latency, seconds per datum) averaged over pairs of different machines."""
        count = self.machines.count
        pairs = max(count * (count - 1), 1)
        latency = float(np.sum(self.delays)) / pairs
        return latency, float(np.sum(self.seconds_per_datum)) / pairs

    def mean_transfer(self, size: float) -> float:
        """Seconds to bring `size` data to another machine, averaged over pairs (HEFT, Eq. 4)."""
        latency, per_datum = self.mean_delay
        return latency + size * per_datum
