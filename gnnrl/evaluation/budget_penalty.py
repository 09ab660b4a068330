"""N2N's constrained reward: a student that is too large or not accurate enough is punished, at
first only a little."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost

PUNISHED = -1.0
"""Reward of a student that failed or is over the budget, as in N2N; others have at least 0."""

OVER = "over budget"
"""Status of a student that costs more than allowed."""

BELOW = "below the accuracy"
"""Status of a student that is less accurate than asked for."""


@dataclass(frozen=True)
class Constraint:
    """What students may cost of the `dense` network, how accurate they have to be, and how long it
    takes until they are punished in full.

    ease_in: updates of the agent.  teacher_accuracy: on the reward images.  at_least: accuracy
    there.
    """

    budget: Budget
    dense: Cost
    ease_in: int
    teacher_accuracy: float
    at_least: float = 0.0

    def __post_init__(self) -> None:
        if self.budget.resource not in asdict(self.dense):
            raise UserError(
                "a constrained reward needs a budget of parameters or flops for students to keep "
                f"to, got one of {self.budget.resource}: give search.budget.parameters"
            )

    def broken(self, cost: Cost, accuracy: float = 1.0) -> str:
        """Return the status of a student that breaks the constraint; empty: it keeps to it."""
        limit = self.budget.fraction * getattr(self.dense, self.budget.resource)
        if getattr(cost, self.budget.resource) > limit:
            return OVER
        return BELOW if accuracy < self.at_least else ""

    def relaxed(self, evaluation: Evaluation, updates: int) -> float:
        """Return the reward that the agent learns from after so many updates.

        Where it is broken (e - 1) + e r, r = C (2 - C) A / A_teacher the reward without the
        constraint, e = max(0, 1 - updates / ease_in)^4 (code of Ashok et al. 2018).
        """
        if evaluation.status not in (OVER, BELOW):
            return evaluation.reward
        ease = max(0.0, 1.0 - updates / self.ease_in) ** 4 if self.ease_in else 0.0
        saved = 1.0 - evaluation.parameters / self.dense.parameters
        relative = evaluation.accuracy / self.teacher_accuracy if self.teacher_accuracy else 0.0
        free = saved * (2.0 - saved) * relative
        return (ease - 1.0) + ease * free
