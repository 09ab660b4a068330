"""Scheduling as a graph environment: an episode places the tasks of one job graph, one a step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from torch_geometric.data import Data

from gnnrl.errors import UserError
from gnnrl.rl.env import GraphEnv, Step
from gnnrl.scheduling.choices import Choices
from gnnrl.scheduling.features import View
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.partial import PartialSchedule

Draw = Callable[[np.random.Generator], Problem]


class SchedulingEnv(GraphEnv):
    """Place one ready task on one machine per step; the sum of rewards is 1 - makespan / HEFT's.

    draw: makes the problem of an episode; `reset(options={"problem": ...})` sets it instead.
    most_tasks: how many ready tasks are offered, those of highest upward rank first.
    lookahead: observe where HEFT and PEFT would end after each choice.

    The reward of a step is how much earlier all would end than it would have before the step, if a
    heuristic did what is left, as a fraction of HEFT's makespan: it adds up to the whole and tells
    each choice from the next.  The heuristic is HEFT or, with lookahead, the best continuation
    seen; what that one gains on HEFT before anything is placed is part of the first reward.
    """

    name = "scheduling"
    action_kind = "categorical"
    constraint = "a task starts after its data are there; a machine runs one task at a time"

    def __init__(self, draw: Draw, *, most_tasks: int = 8, lookahead: bool = True) -> None:
        if most_tasks < 1:
            raise UserError(f"{self.name}: most_tasks must be at least 1, got {most_tasks}")
        self.draw, self.most_tasks, self.lookahead = draw, most_tasks, lookahead
        self._partial: PartialSchedule | None = None

    def clone(self) -> SchedulingEnv:
        """An environment on the same source of problems, in no episode."""
        twin = copy.copy(self)
        twin._partial = None
        return twin

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        """Start on an empty schedule of a new problem."""
        super().reset(seed=seed)
        problem = (options or {}).get("problem") or self.draw(self.np_random)
        self._view = View(problem, self.most_tasks, lookahead=self.lookahead)
        self._partial = PartialSchedule(problem)
        self._heft = self._expected = completed_by_heft(self._partial, self._view.order)
        self.max_episode_steps = problem.jobs.num_tasks
        self._observe()
        return self._seen, {"problem": problem, "heft": self._heft}

    def step(self, action: int) -> Step:
        """Place the task of choice `action` on its machine, as early as it fits."""
        if self._partial is None or self._partial.complete:
            raise ValueError(f"{self.name}: step before reset (or after the episode ended)")
        if not 0 <= action < len(self._choices):
            raise ValueError(
                f"{self.name}: illegal action: {action}, expected 0 to {len(self._choices) - 1}"
            )
        partial, choices = self._partial, self._choices
        partial.place(int(choices.task[action]), int(choices.machine[action]))
        if not partial.complete:
            self._observe()
        before, self._expected = self._expected, self._outlook()
        reward = (before - self._expected) / self._heft
        if not partial.complete:
            return self._seen, reward, False, False, {}
        info = {"plan": partial.schedule(), "makespan": partial.makespan, "heft": self._heft}
        return self._seen, reward, True, False, info

    def _observe(self) -> None:
        """Compute the choices that are open now, and the makespans they would lead to."""
        assert self._partial is not None
        self._choices: Choices = self._view.choices(self._partial)
        self._ends = self._view.ends(self._partial, self._choices)
        self._seen = self._view.observe(self._partial, self._choices, self._ends)
        self.action_space = gymnasium.spaces.Discrete(len(self._choices))

    def _outlook(self) -> float:
        """The second all would end if a heuristic did what is left."""
        assert self._partial is not None
        if self.lookahead and not self._partial.complete:
            return float(self._ends.min())
        return completed_by_heft(self._partial, self._view.order)


def completed_by_heft(partial: PartialSchedule, order: tuple[int, ...]) -> float:
    """Return the makespan if HEFT placed the tasks that are left; `partial` is not changed."""
    rest = partial.copy()
    for task in order:
        if rest.machine[task] < 0:
            rest.place(task, rest.fastest(task))
    return rest.makespan
