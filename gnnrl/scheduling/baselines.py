"""What a trained scheduler is compared with: list schedulers, each with one rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gnnrl.scheduling.choices import Choices
from gnnrl.scheduling.lookahead import Lookahead
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.partial import PartialSchedule
from gnnrl.scheduling.ranks import (
    by_upward_rank,
    downward_rank,
    optimistic_cost,
    upward_rank,
)
from gnnrl.scheduling.schedule import Schedule

Scheduler = Callable[[Problem], Schedule]


def heft(problem: Problem) -> Schedule:
    """Heterogeneous Earliest Finish Time (Topcuoglu et al. 2002): rank, then insert."""
    return list_schedule(problem, by_upward_rank(problem))


def list_schedule(problem: Problem, order: tuple[int, ...]) -> Schedule:
    """Each task in that (topological) order, on the machine where it ends first."""
    partial = PartialSchedule(problem)
    for task in order:
        partial.place(task, partial.fastest(task))
    return partial.schedule()


def peft(problem: Problem) -> Schedule:
    """Predict Earliest Finish Time (Arabnejad and Barbosa 2014): HEFT with the optimistic cost."""
    cost = optimistic_cost(problem)
    rank = cost.mean(axis=1)
    durations, partial = problem.durations, PartialSchedule(problem)
    while not partial.complete:
        task = max(partial.ready, key=lambda ready: rank[ready])
        ends = [
            partial.earliest_start(task, machine) + durations[task][machine] + cost[task][machine]
            for machine in range(problem.machines.count)
        ]
        partial.place(task, int(np.argmin(ends)))
    return partial.schedule()


def lookahead_schedule(problem: Problem, most_tasks: int = 8) -> Schedule:
    """Greedy by the environment's own lookahead: the choice after which HEFT or PEFT ends first.

    What an agent that sees the lookahead gets without learning anything: a rollout policy
    (Bertsekas 2020). Among equals the choice that ends first.  Only the `most_tasks` ready tasks
    of highest upward rank are tried, as in the environment.
    """
    ahead, cost = Lookahead(problem), optimistic_cost(problem)
    rules = np.stack([np.zeros_like(cost), cost])
    place = {task: at for at, task in enumerate(by_upward_rank(problem))}
    partial = PartialSchedule(problem)
    while not partial.complete:
        choices = Choices.of(partial, sorted(partial.ready, key=place.__getitem__)[:most_tasks])
        ends = ahead.makespans(partial, choices, rules).min(axis=0)
        best = int(np.lexsort((choices.finish, ends.round(9)))[0])
        partial.place(int(choices.task[best]), int(choices.machine[best]))
    return partial.schedule()


def fifo(problem: Problem) -> Schedule:
    """First ready, first served: whenever a machine falls free, it takes the oldest waiting task.

    A task is waiting from the second its last producer ends; it goes to the machine that is free
    first, whatever its speed, behind everything already there.
    """
    partial = PartialSchedule(problem)
    while not partial.complete:
        task = min(partial.ready, key=lambda ready: (_ready_since(partial, ready), ready))
        machine = min(range(problem.machines.count), key=partial.available)
        partial.place(task, machine, insertion=False)
    return partial.schedule()


def _ready_since(partial: PartialSchedule, task: int) -> float:
    """The second the last producer of the task ends."""
    parents = partial.problem.jobs.parents[task]
    return max((partial.finish[parent] for parent, _ in parents), default=0.0)


def random_schedule(problem: Problem, generator: np.random.Generator) -> Schedule:
    """Any ready task on any machine, as early as it fits."""
    partial = PartialSchedule(problem)
    while not partial.complete:
        task = partial.ready[int(generator.integers(len(partial.ready)))]
        partial.place(task, int(generator.integers(problem.machines.count)))
    return partial.schedule()


def critical_path(problem: Problem) -> Schedule:
    """Critical Path on a Processor (Topcuoglu et al. 2002, section 4.2).

    Tasks on the critical path all run on the machine that gets through them fastest, the others
    where they end first; the order is by upward + downward rank.
    """
    rank = upward_rank(problem) + downward_rank(problem)
    on_path = _critical_tasks(problem, rank)
    home = int(problem.duration_table[sorted(on_path)].sum(axis=0).argmin())
    partial = PartialSchedule(problem)
    while not partial.complete:
        task = max(partial.ready, key=lambda ready: rank[ready])
        partial.place(task, home if task in on_path else partial.fastest(task))
    return partial.schedule()


def _critical_tasks(problem: Problem, rank: np.ndarray) -> set[int]:
    """One path of tasks whose upward + downward rank is the longest, from a first to a last."""
    jobs = problem.jobs
    entries = [task for task in range(jobs.num_tasks) if not jobs.parents[task]]
    task = max(entries, key=lambda entry: rank[entry])
    path = {task}
    while jobs.children[task]:
        task = max((child for child, _ in jobs.children[task]), key=lambda child: rank[child])
        path.add(task)
    return path
