"""How the rest would go: many continuations of one partial schedule, completed side by side."""

from __future__ import annotations

import numpy as np

from gnnrl.scheduling.choices import Choices
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.partial import PartialSchedule
from gnnrl.scheduling.ranks import by_upward_rank

# C: choices   B: continuations   T: tasks   M: machines   K: consumers of one task


class Lookahead:
    """Completes partial schedules in HEFT's order, one array operation for all continuations.

    Unlike HEFT it appends to a machine and never fills a gap: a gap list per continuation would
    cost more than it tells.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.order = by_upward_rank(problem)
        self.durations = problem.duration_table
        self.delays = np.array(problem.delays)
        self.rates = np.array(problem.seconds_per_datum)
        self.children = [np.array([c for c, _ in row], dtype=int) for row in problem.jobs.children]
        self.sizes = [
            np.array([size for _, size in row])[:, None, None] for row in problem.jobs.children
        ]

    def makespans(
        self, partial: PartialSchedule, choices: Choices, penalties: np.ndarray
    ) -> np.ndarray:
        """Makespan if each choice were taken and a list scheduler did the rest, [rules, C].

        penalties: [rules, T, M] seconds, added to the end of a task when its machine is chosen
        (0: HEFT's rule; the optimistic cost: PEFT's).
        """
        rules, width = len(penalties), len(choices.task)
        rule = np.repeat(np.arange(rules), width)  # [B], B = rules x C
        every = np.arange(rules * width)
        given, machine = np.tile(choices.task, rules), np.tile(choices.machine, rules)
        finish = np.tile(choices.finish, rules)
        arrival = np.repeat(np.array(partial.arrival)[:, None], len(every), axis=1)  # [T, B, M]
        count = self.durations.shape[1]
        free = np.tile([partial.available(m) for m in range(count)], (len(every), 1))  # [B, M]
        free[every, machine] = np.maximum(free[every, machine], finish)
        makespan = np.maximum(partial.makespan, finish)
        for task in np.unique(choices.task):
            self._send(arrival, int(task), machine, np.where(given == task, finish, -np.inf))
        for task in self.order:
            if partial.machine[task] >= 0:
                continue
            ends = np.maximum(free, arrival[task]) + self.durations[task]  # [B, M]
            chosen = (ends + penalties[rule, task]).argmin(axis=1)
            # in its own continuations the task is placed already: there it changes nothing
            end = np.where(given == task, -np.inf, ends[every, chosen])
            free[every, chosen] = np.maximum(free[every, chosen], end)
            np.maximum(makespan, end, out=makespan)
            self._send(arrival, task, chosen, end)
        return makespan.reshape(rules, width)

    def _send(self, arrival: np.ndarray, task: int, source: np.ndarray, end: np.ndarray) -> None:
        """Let the results of a task that ends at end[B] on source[B] reach its consumers."""
        children = self.children[task]
        if children.size:
            seconds = self.delays[source] + self.sizes[task] * self.rates[source]  # [K, B, M]
            arrival[children] = np.maximum(arrival[children], end[:, None] + seconds)
