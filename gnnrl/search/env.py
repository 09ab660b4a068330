"""Pruning as an environment: an episode decides a plan, its evaluation is the reward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch_geometric.data import Data

from gnnrl.evaluation.base import Decided, Evaluation, Evaluator, as_evaluator
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl.env import GraphEnv, Step, action_space

__all__ = ["GraphEnv", "PruningEnv", "Space"]


class Space(Protocol):
    """What `PruningEnv` asks of a search space."""

    size: int

    def plan(self, action: np.ndarray) -> Any:
        """Turn an action into a valid plan within the budget."""

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Prune further: the accumulated action after one more."""

    def met(self, keep: np.ndarray) -> bool:
        """Whether the accumulated action meets the budget."""

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the graph of the network pruned so far."""


@runtime_checkable
class DecidesUnits(Protocol):
    """A space that knows the units which a plan keeps: they need not be found from the plan."""

    def decide(self, action: np.ndarray) -> Decided:
        """Turn an action into a valid plan within the budget, with its units."""


@runtime_checkable
class HasControls(Protocol):
    """A space that knows plans which need no search: what a search has to beat."""

    def controls(self) -> Mapping[str, PruningPlan]:
        """Return plans within the budget by name, such as `uniform`."""


Evaluate = Evaluator | Callable[[Sequence[Any]], Sequence[Evaluation]]


class PruningEnv(GraphEnv):
    """Prune a network to a plan within a budget; the reward is the evaluation of the plan.

    max_steps = 1: one action is the plan. More: as in GNN-RL (Yu et al. 2022) every step prunes
    further and the graph is built anew, until the budget is met or the steps are used up, when
    the space projects what was reached onto the budget.

    controls: plans by name that a search evaluates first, to compare with; none at first.

    At the end of an episode `info["plan"]` is the plan and `info["decided"]` the plan with its
    units. The copies that a search plays with (`player`) leave the evaluation to it: the reward is
    0.0 and `info["pending"]` true, so that `evaluate` takes the plans of many episodes at once.
    """

    name = "pruning"
    constraint = "no plan is over the budget"

    def __init__(self, space: Space, evaluate: Evaluate, max_steps: int = 1) -> None:
        """evaluate: an `Evaluator`, or a plain function from plans to evaluations."""
        if max_steps < 1:
            raise ValueError(f"max_steps {max_steps}: an episode needs at least one step")
        self.space = space
        self.evaluate = evaluate
        self.max_steps = max_steps
        self.max_episode_steps = max_steps
        self.controls: Mapping[str, PruningPlan] = {}
        self.action_kind = getattr(space, "action_kind", "continuous")
        self.action_space = action_space(self.action_kind, space.size)
        self._first = space.observation()
        self._leaves_pending = False
        self._keep: np.ndarray | None = None
        self._steps = 0

    @property
    def evaluate(self) -> Evaluator:
        """What says how good plans are."""
        return self._evaluate

    @evaluate.setter
    def evaluate(self, evaluate: Evaluate) -> None:
        self._evaluate = as_evaluator(evaluate)

    def comparisons(self) -> Mapping[str, PruningPlan]:
        """Return the controls that the space knows, by name."""
        return self.space.controls() if isinstance(self.space, HasControls) else {}

    def clone(self) -> PruningEnv:
        """Return an environment on the same space and evaluation."""
        twin = copy.copy(self)
        twin._keep, twin._steps = None, 0
        return twin

    def player(self) -> PruningEnv:
        """Return a copy that leaves the evaluation of its plans to the search."""
        twin = self.clone()
        twin._leaves_pending = True
        return twin

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        """Start from the whole network."""
        super().reset(seed=seed)
        self._keep, self._steps = None, 0
        return copy.copy(self._first), {}

    def step(self, action: Any) -> Step:
        """Prune; the last step decides the plan, whose evaluation is the reward unless pending."""
        action = np.asarray(action)
        self._steps += 1
        if self.max_steps > 1:
            action = self._keep = self.space.step(self._keep, action)
            if self._steps < self.max_steps and not self.space.met(action):
                return self.space.observation(action), 0.0, False, False, {}
        decided = self._decide(action)
        info: dict[str, Any] = {"plan": decided.plan, "decided": decided}
        if self._leaves_pending:
            return copy.copy(self._first), 0.0, True, False, {**info, "pending": True}
        (evaluation,) = self.evaluate([decided])
        info["evaluation"] = evaluation
        return copy.copy(self._first), evaluation.reward, True, False, info

    def _decide(self, action: np.ndarray) -> Decided:
        if isinstance(self.space, DecidesUnits):
            return self.space.decide(action)
        return Decided(self.space.plan(action))
