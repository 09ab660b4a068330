"""N2N's constrained reward: a student over the budget is punished, at first only a little."""

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


@dataclass(frozen=True)
class Constraint:
    """What students may cost of the `dense` network, and how long it takes to be punished in full.

    ease_in: updates of the agent.  teacher_accuracy: on the reward images.
    """

    budget: Budget
    dense: Cost
    ease_in: int
    teacher_accuracy: float

    def __post_init__(self) -> None:
        if self.budget.resource not in asdict(self.dense):
            raise UserError(
                "a constrained reward needs a budget of parameters or flops for students to keep "
                f"to, got one of {self.budget.resource}: give search.budget.parameters"
            )

    def broken(self, cost: Cost) -> bool:
        """Whether a student of this cost is over the budget."""
        limit = self.budget.fraction * getattr(self.dense, self.budget.resource)
        return getattr(cost, self.budget.resource) > limit

    def relaxed(self, evaluation: Evaluation, updates: int) -> float:
        """Return the reward that the agent learns from after so many updates.

        Over the budget (e - 1) + e r, r = C (2 - C) A / A_teacher the reward without the
        constraint, e = max(0, 1 - updates / ease_in)^4 (code of Ashok et al. 2018).
        """
        if evaluation.status != OVER:
            return evaluation.reward
        ease = max(0.0, 1.0 - updates / self.ease_in) ** 4 if self.ease_in else 0.0
        saved = 1.0 - evaluation.parameters / self.dense.parameters
        relative = evaluation.accuracy / self.teacher_accuracy if self.teacher_accuracy else 0.0
        free = saved * (2.0 - saved) * relative
        return (ease - 1.0) + ease * free
