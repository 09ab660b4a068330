"""What a scheduling agent sees: the tasks that are left, the machines, and the choices open now.

Times are in units of the problem's mean duration and squashed, so features mean the same on a
graph of ten tasks and on one of two hundred.
"""

# T: tasks   R: tasks not placed yet   M: machines   C: choices (a ready task on a machine)

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.scheduling.choices import Choices
from gnnrl.scheduling.lookahead import Lookahead
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.partial import PartialSchedule
from gnnrl.scheduling.ranks import by_upward_rank, optimistic_cost, upward_rank

TASK, MACHINE, CHOICE = 9, 4, 14  # features of each kind of node
COMMON = 5  # one-hot of the kind, fraction of tasks left, ready tasks
WIDTH = COMMON + TASK + MACHINE + CHOICE
EDGE_KINDS = 6  # data down, data up, task to choice and back, machine to choice and back

Numbers = TypeVar("Numbers", np.ndarray, float)


class View:
    """All that is constant about a problem, computed once, and observations of its states."""

    def __init__(self, problem: Problem, most_tasks: int, *, lookahead: bool) -> None:
        self.problem = problem
        self.most_tasks = most_tasks
        self.order = by_upward_rank(problem)
        self.rank = upward_rank(problem)
        self.cost = optimistic_cost(problem)
        self.rules = np.stack([np.zeros_like(self.cost), self.cost])  # HEFT's and PEFT's
        self.unit = float(problem.duration_table.mean())
        self.lookahead = Lookahead(problem) if lookahead else None
        self.place_in_order = np.argsort(self.order)
        edges = np.array(problem.jobs.edges, dtype=int).reshape(-1, 2)
        self.producer, self.consumer = edges.T
        seconds = np.array([problem.mean_transfer(size) for size in problem.jobs.data])
        self.edge_time = squash(seconds / self.unit)
        self.degree = squash(np.bincount(self.producer, minlength=problem.jobs.num_tasks) / 4)

    @cached_property
    def task_constants(self) -> np.ndarray:
        """Features of tasks that never change, [T, 3]."""
        table = self.problem.duration_table / self.unit
        return np.stack([squash(table.mean(1) - 1), squash(table.std(1)), self.degree], axis=1)

    def choices(self, partial: PartialSchedule) -> Choices:
        """The ready tasks of highest upward rank (at most `most_tasks`), on every machine."""
        ready = sorted(partial.ready, key=self.place_in_order.__getitem__)[: self.most_tasks]
        return Choices.of(partial, ready)

    def ends(self, partial: PartialSchedule, choices: Choices) -> np.ndarray:
        """When all would end after each choice, if HEFT (PEFT) went on, or the better: [3, C].

        Zeros without lookahead.
        """
        if self.lookahead is None:
            return np.zeros((3, len(choices)))
        ends = self.lookahead.makespans(partial, choices, self.rules)
        return np.concatenate([ends, ends.min(axis=0, keepdims=True)])

    def observe(self, partial: PartialSchedule, choices: Choices, ends: np.ndarray) -> Data:
        """The state as a graph; the decision nodes are the choices, in their order.

        ends: of the choices, as from `ends`.
        """
        left = np.flatnonzero(np.array(partial.machine) < 0)
        tasks, machines = len(left), self.problem.machines.count
        count = len(choices)
        x = np.zeros((tasks + machines + count, WIDTH), dtype=np.float32)
        x[:tasks, 0] = x[tasks : tasks + machines, 1] = x[tasks + machines :, 2] = 1.0
        x[:, 3] = tasks / self.problem.jobs.num_tasks
        x[:, 4] = squash(len(partial.ready) / machines)
        free = np.array([partial.available(machine) for machine in range(machines)])
        at = COMMON
        x[:tasks, at : at + TASK] = self._tasks(partial, left, free)
        at += TASK
        x[tasks : tasks + machines, at : at + MACHINE] = self._machines(partial, free)
        at += MACHINE
        x[tasks + machines :, at:] = self._choices(partial, choices, ends)
        edge_index, edge_attr = self._edges(left, choices)
        return Data(
            x=torch.from_numpy(x),
            edge_index=torch.from_numpy(edge_index),
            edge_attr=torch.from_numpy(edge_attr),
            decision_index=torch.arange(tasks + machines, tasks + machines + count),
            action_mask=torch.ones(count, dtype=torch.bool),
        )

    def _tasks(self, partial: PartialSchedule, left: np.ndarray, free: np.ndarray) -> np.ndarray:
        """[R, 9]: constants, urgency, whether it can start, when its data arrive."""
        rank = self.rank[left]
        arrival = np.array(partial.arrival)[left]
        waiting = np.array(partial.waiting)[left]
        columns = [
            squash((rank - rank.max()) / self.unit),
            rank / rank.max(),
            waiting == 0,
            squash(waiting / 2),
            squash((arrival.min(1) - free.min()) / self.unit),
            squash((arrival.max(1) - arrival.min(1)) / self.unit),
        ]
        return np.concatenate([self.task_constants[left], np.stack(columns, axis=1)], axis=1)

    def _machines(self, partial: PartialSchedule, free: np.ndarray) -> np.ndarray:
        """[M, 4]: how slow, how late it is free, and how slow its lines are."""
        slowness = self.problem.duration_table.mean(axis=0) / self.unit
        rates = np.array(self.problem.seconds_per_datum).sum(axis=1)
        per_datum = self.problem.mean_delay[1] * max(len(rates) - 1, 1) or 1.0
        columns = [
            squash(slowness - 1),
            squash((free - free.mean()) / self.unit),
            squash((partial.makespan - free) / self.unit),
            squash(rates / per_datum - 1),
        ]
        return np.stack(columns, axis=1)

    def _choices(self, partial: PartialSchedule, choices: Choices, ends: np.ndarray) -> np.ndarray:
        """[C, 14]: when it would end, what it would leave, and where two heuristics would end.

        The last two mark what HEFT would choose, and what the lookahead would.
        """
        task, machine, finish = choices.task, choices.machine, choices.finish
        free = np.array([partial.available(m) for m in range(self.problem.machines.count)])
        arrival = np.array(partial.arrival)[task, machine]
        rank = self.rank[task]
        after = finish + self.cost[task, machine]  # the end of all, were machines never busy
        best = _least_per_task(finish, len(free))
        heft = (task == task[rank.argmax()]) & (finish == best)
        regrets = ends - ends.min(axis=1, keepdims=True)
        ahead = np.arange(len(choices)) == np.lexsort((finish, regrets[2].round(9)))[0]
        columns = [
            *regrets,
            finish - best,
            after - _least_per_task(after, len(free)),
            finish - finish.min(),
            after - after.max(),
            choices.start - free[machine],
            choices.start - arrival,
            finish - choices.start - self.unit,
            finish - free.mean(),
            rank.max() - rank,
        ]
        scaled = squash(np.stack(columns, axis=1) / self.unit)
        marks = np.stack([heft, ahead & (self.lookahead is not None)], axis=1)
        return np.concatenate([scaled, marks], axis=1)

    def _edges(self, left: np.ndarray, choices: Choices) -> tuple[np.ndarray, np.ndarray]:
        """edge_index [2, E] and edge_attr [E, 7]: one-hot of the kind, and the transfer's time."""
        tasks, machines = len(left), self.problem.machines.count
        number = np.full(self.problem.jobs.num_tasks, -1)
        number[left] = np.arange(tasks)
        live = number[self.producer] >= 0  # then the consumer is not placed either
        down = np.stack([number[self.producer[live]], number[self.consumer[live]]])
        choice = tasks + machines + np.arange(len(choices.task))
        of_task = np.stack([number[choices.task], choice])
        of_machine = np.stack([tasks + choices.machine, choice])
        parts = [down, down[::-1], of_task, of_task[::-1], of_machine, of_machine[::-1]]
        edge_index = np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.int64)
        kinds = np.repeat(np.arange(EDGE_KINDS), [part.shape[1] for part in parts])
        edge_attr = np.zeros((len(kinds), EDGE_KINDS + 1), dtype=np.float32)
        edge_attr[np.arange(len(kinds)), kinds] = 1.0
        edge_attr[: 2 * down.shape[1], EDGE_KINDS] = np.tile(self.edge_time[live], 2)
        return edge_index, edge_attr


def _least_per_task(values: np.ndarray, machines: int) -> np.ndarray:
    """The least value over the machines of each task, for every choice, [C]."""
    return np.repeat(values.reshape(-1, machines).min(axis=1), machines)


def squash(values: Numbers) -> Numbers:
    """Into (-1, 1), with slope 1 at 0: small differences between choices remain visible."""
    return values / (1.0 + abs(values))
