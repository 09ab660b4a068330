"""The best plans of a search are scored again, on images that the search has not used."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluator
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.refitted import Refitted
from gnnrl.pruning.compensation.gram import Solved
from gnnrl.pruning.compensation.sequential import Refit
from gnnrl.runtime import generator
from gnnrl.search.loop import SearchResult
from gnnrl.tasks.base import Targets


@dataclass(frozen=True)
class Rescoring:
    """What scores the best plans again; it is known before the search, and paid for by it.

    plans: how many.  share: of the new images among all that a plan has then been scored on.
    """

    evaluator: Evaluator
    plans: int
    share: float

    @classmethod
    def of(
        cls,
        evaluator: Evaluator,
        plans: int,
        images: Tensor,
        labels: Targets,
        calibration: Tensor | None = None,
        seed: int = 0,
        compensation: str = "sequential",
    ) -> Rescoring:
        """Prepare it for images `[M, C, H, W]` with their labels.

        calibration: images on which the subnets are repaired first, by `compensation`; None: they
        are not.  Raises `UserError` where the evaluator cannot score plans on other images.
        """
        again = evaluator.on(images, labels)
        if again is None:
            raise UserError(
                f"search.rescore: plans that {type(evaluator).__name__} evaluates cannot be scored "
                "on other images; take search.rescore out"
            )
        if calibration is not None:
            if not isinstance(again, OneShot):
                raise UserError(
                    f"search.rescore.compensation {compensation}: repairs subnets that OneShot "
                    f"scores, got {type(again).__name__}; set it to reward"
                )
            own = generator(seed, "compensation")
            repair = (
                Refit(again.surgeon, calibration, own)
                if compensation == "sequential"
                else Solved(again.surgeon, compensation, calibration, own)
            )
            return cls(Refitted(again, images, repair, plans), plans, 1.0)
        return cls(again, plans, len(images) / (len(images) + evaluator.images))

    @property
    def cost(self) -> int:
        """Evaluation equivalents that are put aside for it, a whole number."""
        return math.ceil(self.plans * self.evaluator.cost)

    def left_of(self, evaluations: int) -> int:
        """Return the evaluations that the search may spend itself; at least one must be left."""
        if self.cost >= evaluations:
            raise UserError(
                f"search.rescore costs {self.cost} of {evaluations} evaluations, so that none is "
                "left for the search: rescore fewer plans or images, or raise search.evaluations"
            )
        return evaluations - self.cost

    def applied(self, found: SearchResult) -> SearchResult:
        """Return the search with the best of its leading plans by their mean reward on all images.

        A search takes the maximum of many noisy rewards, which is too good for the plan that has
        it; on further images the best plans are compared anew, with the one that it started from.
        """
        rows: list[dict[str, Any]] = []
        for plan, reward in found.leaders:
            (second,) = self.evaluator([plan])
            both = (1 - self.share) * reward + self.share * second.reward
            rows.append(
                {"plan": plan.digest, "reward": both, "first": reward, "second": second.reward,
                 "cost": second.cost}
            )  # fmt: skip
        best = max(range(len(rows)), key=lambda i: rows[i]["reward"])
        plan, _ = found.leaders[best]
        return replace(found, plan=plan, reward=rows[best]["reward"], rescored=rows)
