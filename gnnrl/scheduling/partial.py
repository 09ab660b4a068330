"""A schedule under construction: the simulation inside every heuristic and the environment.

Plain floats in lists, not arrays: a decision touches a dozen numbers, where an array operation
costs more than the arithmetic.
"""

from __future__ import annotations

from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.schedule import Schedule

NOWHERE = -1
FOREVER = float("inf")


class PartialSchedule:
    """Tasks placed so far, and the earliest start of every other one.

    machine, start, finish: for each task; machine is NOWHERE while it is not placed.
    arrival: [task][machine], the second the data of its placed producers are there.
    waiting: for each task, how many of its producers are not placed yet.
    gaps: for each machine, the free (open, close) stretches in time order; the last is endless.
    """

    def __init__(self, problem: Problem) -> None:
        count, tasks = problem.machines.count, problem.jobs.num_tasks
        self.problem = problem
        self.machine = [NOWHERE] * tasks
        self.start = [0.0] * tasks
        self.finish = [0.0] * tasks
        self.arrival = [[0.0] * count for _ in range(tasks)]
        self.waiting = [len(parents) for parents in problem.jobs.parents]
        self.gaps: list[list[tuple[float, float]]] = [[(0.0, FOREVER)] for _ in range(count)]
        self.ready = [task for task in range(tasks) if not self.waiting[task]]
        self.makespan = 0.0

    def copy(self) -> PartialSchedule:
        """The same state, free to go on in another way."""
        other = object.__new__(PartialSchedule)
        other.problem = self.problem
        other.machine, other.start = self.machine[:], self.start[:]
        other.finish, other.waiting = self.finish[:], self.waiting[:]
        other.arrival = [row[:] for row in self.arrival]
        other.gaps = [gaps[:] for gaps in self.gaps]
        other.ready, other.makespan = self.ready[:], self.makespan
        return other

    @property
    def complete(self) -> bool:
        """Whether every task is placed (nothing is ready only then: there are no cycles)."""
        return not self.ready

    def available(self, machine: int) -> float:
        """The second after which nothing is placed on that machine."""
        return self.gaps[machine][-1][0]

    def earliest_start(self, task: int, machine: int) -> float:
        """The first second the task fits, gaps between placed tasks included (HEFT's insertion)."""
        arrival = self.arrival[task][machine]
        duration = self.problem.durations[task][machine]
        for begin, close in self.gaps[machine]:
            start = begin if begin > arrival else arrival
            if start + duration <= close:
                return start
        raise AssertionError("the last gap is endless")

    def fastest(self, task: int) -> int:
        """The machine on which the task ends first; the lower number among equals."""
        durations = self.problem.durations[task]
        best, least = 0, FOREVER
        for machine, duration in enumerate(durations):
            finish = self.earliest_start(task, machine) + duration
            if finish < least:
                best, least = machine, finish
        return best

    def place(self, task: int, machine: int, *, insertion: bool = True) -> None:
        """Run a ready task on a machine, as early as it fits (or after all others there)."""
        if insertion:
            start = self.earliest_start(task, machine)
        else:
            start = max(self.available(machine), self.arrival[task][machine])
        finish = start + self.problem.durations[task][machine]
        self.machine[task], self.start[task], self.finish[task] = machine, start, finish
        self.makespan = max(self.makespan, finish)
        self._occupy(machine, start, finish)
        self.ready.remove(task)
        self._release_children(task, machine, finish)

    def _occupy(self, machine: int, start: float, finish: float) -> None:
        """Take [start, finish] out of the gap it lies in."""
        gaps = self.gaps[machine]
        at = next(i for i, (begin, close) in enumerate(gaps) if begin <= start and finish <= close)
        begin, close = gaps[at]
        parts = [(begin, start)] if start > begin else []
        if close > finish:
            parts.append((finish, close))
        gaps[at : at + 1] = parts

    def _release_children(self, task: int, machine: int, finish: float) -> None:
        """Send the task's results to wherever its consumers may run."""
        delays = self.problem.delays[machine]
        rates = self.problem.seconds_per_datum[machine]
        for child, size in self.problem.jobs.children[task]:
            row = self.arrival[child]
            for target, delay in enumerate(delays):
                arrives = finish + delay + size * rates[target]
                if arrives > row[target]:
                    row[target] = arrives
            self.waiting[child] -= 1
            if not self.waiting[child]:
                self.ready.append(child)

    def schedule(self) -> Schedule:
        """The finished schedule, checked."""
        return Schedule(self.problem, tuple(self.machine), tuple(self.start))
