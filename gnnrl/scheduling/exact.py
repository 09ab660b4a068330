"""The optimum of tiny problems, by branch and bound."""

from __future__ import annotations

from gnnrl.errors import UserError
from gnnrl.scheduling.baselines import heft
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.partial import PartialSchedule
from gnnrl.scheduling.schedule import Schedule

LARGEST = 12  # tasks: more take hours


def optimum(problem: Problem) -> Schedule:
    """A schedule of least makespan; refuses problems of more than 12 tasks.

    Some best schedule starts every task as early as the tasks that start before it allow.  Adding
    tasks in the order they start, each behind all others of its machine, reaches every such
    schedule once; a branch that cannot end before the best known one is cut.
    """
    if problem.jobs.num_tasks > LARGEST:
        raise UserError(
            f"{problem.jobs.name}: {problem.jobs.num_tasks} tasks are too many for exact search "
            f"(at most {LARGEST}; compare with HEFT instead)"
        )
    return _Search(problem).run()


class _Search:
    """One depth-first search and the best schedule it knows."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.best = heft(problem)
        self.bound = self.best.makespan
        self.shortest = [min(row) for row in problem.durations]
        self.tail = [0.0] * problem.jobs.num_tasks  # least seconds after the task ends
        for task in reversed(problem.jobs.order):
            after = [self.shortest[c] + self.tail[c] for c, _ in problem.jobs.children[task]]
            self.tail[task] = max(after, default=0.0)

    def run(self) -> Schedule:
        """Search everything that could be better than HEFT."""
        self._extend(PartialSchedule(self.problem), 0.0)
        return self.best

    def _extend(self, partial: PartialSchedule, now: float) -> None:
        """Try every next task that starts at `now` or later, the most promising first."""
        if partial.complete:
            if partial.makespan < self.bound:
                self.best, self.bound = partial.schedule(), partial.makespan
            return
        for _, start, task, machine in self._choices(partial, now):
            if start + self.problem.durations[task][machine] + self.tail[task] >= self.bound:
                continue
            branch = partial.copy()
            branch.place(task, machine, insertion=False)
            if self._least_makespan(branch, start) < self.bound:
                self._extend(branch, start)

    def _choices(self, partial: PartialSchedule, now: float) -> list[tuple[float, float, int, int]]:
        """(end of the task and all that must follow it, start, task, machine), rising."""
        found = []
        for task in partial.ready:
            for machine, duration in enumerate(self.problem.durations[task]):
                start = max(partial.available(machine), partial.arrival[task][machine])
                if start >= now:
                    found.append((start + duration + self.tail[task], start, task, machine))
        return sorted(found)

    def _least_makespan(self, partial: PartialSchedule, now: float) -> float:
        """No completion ends earlier: the longest chain left, and all work left shared out."""
        jobs, left, chain = self.problem.jobs, 0.0, partial.makespan
        begins = [now] * jobs.num_tasks
        for task in jobs.order:
            if partial.machine[task] >= 0:
                begins[task] = partial.finish[task]  # for its consumers: where it ends
                continue
            earliest = max(now, min(partial.arrival[task]))
            for parent, _ in jobs.parents[task]:
                earliest = max(earliest, begins[parent])
            begins[task] = earliest + self.shortest[task]
            chain = max(chain, begins[task] + self.tail[task])
            left += self.shortest[task]
        count = self.problem.machines.count
        free = sum(max(now, partial.available(machine)) for machine in range(count))
        return max(chain, (free + left) / count)
