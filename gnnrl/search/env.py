"""Pruning as an environment: an episode decides a plan, its evaluation is the reward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch_geometric.data import Data

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided, Evaluation, Evaluator, as_evaluator
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl.env import GraphEnv, Step, action_space
from gnnrl.search.steps import DecidedInTurn, Further, InTurn, PrunesFurther, Steps

__all__ = ["GraphEnv", "PruningEnv", "Space"]


class Space(PrunesFurther, Protocol):
    """What `PruningEnv` asks of a search space."""

    size: int

    def plan(self, action: np.ndarray) -> Any:
        """Turn an action into a valid plan within the budget."""


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

    in_turn: as in AMC (He et al. 2018) and AGMC (Yu et al. 2021) every step makes one decision, in
    the order of the network; the graph then shows it, with the actions taken so far (`decided`).

    At the end of an episode `info["plan"]` is the plan and `info["decided"]` the plan with its
    units. The copies that a search plays with (`player`) leave the evaluation to it: the reward is
    0.0 and `info["pending"]` true, so that `evaluate` takes the plans of many episodes at once.
    """

    name = "pruning"
    constraint = "no plan is over the budget"

    def __init__(
        self, space: Space, evaluate: Evaluate, max_steps: int = 1, in_turn: bool = False
    ) -> None:
        """evaluate: an `Evaluator`, or a plain function from plans to evaluations.

        Raises `UserError` where decisions are to be made in turn and the space is none whose
        decisions are numbers.
        """
        if max_steps < 1:
            raise ValueError(f"max_steps {max_steps}: an episode needs at least one step")
        continuous = getattr(space, "action_kind", "continuous") == "continuous"
        if in_turn and not (max_steps == 1 and continuous and isinstance(space, DecidedInTurn)):
            raise UserError(
                f"in_turn: got {type(space).__name__} with max_steps {max_steps}, expected one "
                "step and a space of numbers with a method `partly`; set in_turn to false"
            )
        self.space = space
        self.evaluate = evaluate
        self.max_steps, self.in_turn = max_steps, in_turn
        self.max_episode_steps = space.size if in_turn else max_steps
        self.action_kind = getattr(space, "action_kind", "continuous")
        self.action_space = action_space(self.action_kind, 1 if in_turn else space.size)
        self._first = space.observation()
        self._leaves_pending = False
        self._steps = self._begun()

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
        twin._steps = twin._begun()
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
        self._steps = self._begun()
        return self._steps.observation(), {}

    def step(self, action: Any) -> Step:
        """Prune; the last step decides the plan, whose evaluation is the reward unless pending."""
        whole = self._steps.take(np.asarray(action))
        if whole is None:
            return self._steps.observation(), 0.0, False, False, {}
        decided = self._decide(whole)
        info: dict[str, Any] = {"plan": decided.plan, "decided": decided}
        if self._leaves_pending:
            return copy.copy(self._first), 0.0, True, False, {**info, "pending": True}
        (evaluation,) = self.evaluate([decided])
        info["evaluation"] = evaluation
        return copy.copy(self._first), evaluation.reward, True, False, info

    def _begun(self) -> Steps:
        """The steps of a new episode."""
        if self.in_turn:
            assert isinstance(self.space, DecidedInTurn)
            return InTurn(self.space, self._first)
        return Further(self.space, self._first, self.max_steps)

    def _decide(self, action: np.ndarray) -> Decided:
        if isinstance(self.space, DecidesUnits):
            return self.space.decide(action)
        return Decided(self.space.plan(action))
