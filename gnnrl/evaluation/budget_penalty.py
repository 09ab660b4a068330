"""N2N's constrained reward: a student over the budget is punished, at first only a little."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost

OVER = "over budget"
"""Status of a student that is dearer than allowed; its reward is that of one that failed."""


@dataclass(frozen=True)
class Constraint:
    """What students may cost of the `whole`, and over how many updates the agent gets used to it.

    teacher_accuracy: on the reward images.
    """

    budget: Budget
    whole: Cost
    ease_in: int
    teacher_accuracy: float

    def __post_init__(self) -> None:
        if self.budget.resource not in asdict(self.whole):
            raise UserError(
                "a constrained reward needs a budget of parameters or flops for students to keep "
                f"to, got one of {self.budget.resource}: give search.budget.parameters"
            )

    def broken(self, price: Cost) -> bool:
        """Whether a student of this cost is over the budget."""
        limit = self.budget.fraction * getattr(self.whole, self.budget.resource)
        return getattr(price, self.budget.resource) > limit

    def relaxed(self, evaluation: Evaluation, updates: int) -> float:
        """The reward as the agent is to see it after so many updates.

        Over the budget (e - 1) + e r, r = C (2 - C) A / A_teacher the reward without the
        constraint, e = max(0, 1 - updates / ease_in)^4 (code of Ashok et al. 2018).
        """
        if evaluation.status != OVER:
            return evaluation.reward
        ease = max(0.0, 1.0 - updates / self.ease_in) ** 4 if self.ease_in else 0.0
        saved = 1.0 - evaluation.parameters / self.whole.parameters
        relative = evaluation.accuracy / self.teacher_accuracy if self.teacher_accuracy else 0.0
        free = saved * (2.0 - saved) * relative
        return (ease - 1.0) + ease * free
