"""When and where every task runs: a value that refuses to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl.errors import UserError
from gnnrl.scheduling.machines import Problem

TOLERANCE = 1e-9  # seconds, relative to the makespan: sums of floats in another order


@dataclass(frozen=True)
class Schedule:
    """A complete schedule of a problem.

    machine, start: for each task, the machine it runs on and the second it starts.
    Refused: a task on no machine, a start before its data are there, two tasks at once.
    """

    problem: Problem
    machine: tuple[int, ...]
    start: tuple[float, ...]

    def __post_init__(self) -> None:
        jobs = self.problem.jobs
        if len(self.machine) != jobs.num_tasks or len(self.start) != jobs.num_tasks:
            raise UserError(
                f"{jobs.name}: schedule of {len(self.machine)} machines and {len(self.start)} "
                f"starts, expected one of each for {jobs.num_tasks} tasks"
            )
        self._check_places()
        self._check_precedence()
        self._check_overlap()

    @property
    def finish(self) -> tuple[float, ...]:
        """The second each task ends."""
        rows = self.problem.durations
        return tuple(
            begin + rows[task][machine]
            for task, (machine, begin) in enumerate(zip(self.machine, self.start, strict=True))
        )

    @property
    def makespan(self) -> float:
        """The second the last task ends."""
        return max(self.finish)

    def _check_places(self) -> None:
        count, name = self.problem.machines.count, self.problem.jobs.name
        for task, (machine, begin) in enumerate(zip(self.machine, self.start, strict=True)):
            if not 0 <= machine < count:
                raise UserError(f"{name}: task {task} on machine {machine} of 0 to {count - 1}")
            if not 0 <= begin < float("inf"):
                raise UserError(f"{name}: task {task} starts at {begin}, expected >= 0")

    def _check_precedence(self) -> None:
        jobs, finish = self.problem.jobs, self.finish
        slack = TOLERANCE * max(finish)
        for (producer, consumer), size in zip(jobs.edges, jobs.data, strict=True):
            source, target = self.machine[producer], self.machine[consumer]
            arrives = finish[producer] + self.problem.transfer(size, source, target)
            if self.start[consumer] < arrives - slack:
                raise UserError(
                    f"{jobs.name}: task {consumer} starts at {self.start[consumer]:g} but its data "
                    f"from task {producer} arrive at {arrives:g}"
                )

    def _check_overlap(self) -> None:
        finish = self.finish
        slack = TOLERANCE * max(finish)
        by_start = sorted(range(len(self.start)), key=lambda task: self.start[task])
        last: dict[int, int] = {}
        for task in by_start:
            before = last.get(self.machine[task])
            if before is not None and self.start[task] < finish[before] - slack:
                raise UserError(
                    f"{self.problem.jobs.name}: tasks {before} and {task} run at once on machine "
                    f"{self.machine[task]} ({finish[before]:g} > {self.start[task]:g})"
                )
            last[self.machine[task]] = task
