"""Pruning as an environment: an episode decides a plan, its evaluation is the reward."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch_geometric.data import Data

from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.env import GraphEnv, Step, action_space

__all__ = ["GraphEnv", "PruningEnv", "Space"]


class Space(Protocol):
    """What `PruningEnv` asks of a search space."""

    size: int

    def plan(self, action: np.ndarray) -> Any:
        """Turn an action into a valid plan within the budget."""

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Cut further: the accumulated action after one more."""

    def met(self, keep: np.ndarray) -> bool:
        """Whether the accumulated action meets the budget."""

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the graph of the network cut so far."""


Evaluate = Callable[[Sequence[Any]], Sequence[Evaluation]]


class PruningEnv(GraphEnv):
    """Cut a network to a plan within a budget; the reward is the evaluation of the plan.

    max_steps = 1: one action is the plan. More: as in GNN-RL (Yu et al. 2022) every step cuts
    further and the graph is built anew, until the budget is met or the steps are used up, when
    the space projects what was reached onto the budget.

    deferred: leave the evaluation to the caller. The last reward is then NaN, `info["plan"]` says
    what to evaluate, and `evaluate` takes the plans of many episodes at once.
    """

    name = "pruning"
    constraint = "no plan is over the budget"

    def __init__(self, space: Space, evaluate: Evaluate, max_steps: int = 1) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps {max_steps}: an episode needs at least one step")
        self.space = space
        self.evaluate = evaluate
        self.max_steps = max_steps
        self.max_episode_steps = max_steps
        self.deferred = False
        self.action_kind = getattr(space, "action_kind", "continuous")
        self.action_space = action_space(self.action_kind, space.size)
        self._first = space.observation()
        self._keep: np.ndarray | None = None
        self._steps = 0

    def clone(self) -> PruningEnv:
        """Return an environment on the same space and evaluation."""
        twin = copy.copy(self)
        twin._keep, twin._steps = None, 0
        return twin

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        """Start from the network as it is."""
        super().reset(seed=seed)
        self._keep, self._steps = None, 0
        return copy.copy(self._first), {}

    def step(self, action: Any) -> Step:
        """Cut; at the end of the episode `info` holds `plan` and, unless deferred, `evaluation`."""
        action = np.asarray(action)
        self._steps += 1
        if self.max_steps > 1:
            action = self._keep = self.space.step(self._keep, action)
            if self._steps < self.max_steps and not self.space.met(action):
                return self.space.observation(action), 0.0, False, False, {}
        plan = self.space.plan(action)
        info: dict[str, Any] = {"plan": plan}
        reward = math.nan
        if not self.deferred:
            (evaluation,) = self.evaluate([plan])
            info["evaluation"], reward = evaluation, evaluation.reward
        return copy.copy(self._first), reward, True, False, info
