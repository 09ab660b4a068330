"""Priorities of tasks, all computed before anything is placed."""

from __future__ import annotations

import numpy as np

from gnnrl.scheduling.machines import Problem


def upward_rank(problem: Problem) -> np.ndarray:
    """Mean seconds from a task's start to the end of all (Topcuoglu et al. 2002, Eq. 8).

    [tasks]
    """
    mean, jobs = problem.duration_table.mean(axis=1), problem.jobs
    rank = mean.copy()
    for task in reversed(jobs.order):
        tails = [problem.mean_transfer(size) + rank[child] for child, size in jobs.children[task]]
        rank[task] += max(tails, default=0.0)
    return rank


def downward_rank(problem: Problem) -> np.ndarray:
    """Mean seconds from the start of all to a task's start (the same paper, Eq. 10).

    [tasks]
    """
    mean, jobs = problem.duration_table.mean(axis=1), problem.jobs
    rank = np.zeros(jobs.num_tasks)
    for task in jobs.order:
        heads = [
            rank[parent] + mean[parent] + problem.mean_transfer(size)
            for parent, size in jobs.parents[task]
        ]
        rank[task] = max(heads, default=0.0)
    return rank


def optimistic_cost(problem: Problem) -> np.ndarray:
    """Least seconds after a task ends there until all is done (Arabnejad and Barbosa 2014, Eq. 6).

    [tasks, machines]: every later task runs where it is best off, as if machines were never busy.
    Transfers are those between the two machines, where the paper takes their mean.
    """
    jobs, count = problem.jobs, problem.machines.count
    table = np.zeros((jobs.num_tasks, count))
    delays, rates = np.array(problem.delays), np.array(problem.seconds_per_datum)
    for task in reversed(jobs.order):
        for child, size in jobs.children[task]:
            there = table[child] + problem.duration_table[child]  # [machines]
            table[task] = np.maximum(table[task], (there + delays + size * rates).min(axis=1))
    return table


def by_upward_rank(problem: Problem) -> tuple[int, ...]:
    """Tasks by falling upward rank: HEFT's order, and a topological one."""
    position = {task: place for place, task in enumerate(problem.jobs.order)}
    rank = upward_rank(problem)
    return tuple(sorted(position, key=lambda task: (-rank[task], position[task])))
