"""A second look at the best plans of a search, on images that it has not been scored by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.evaluation.base import EQUIVALENT
from gnnrl.evaluation.one_shot import Evaluator
from gnnrl.search.loop import SearchResult


@runtime_checkable
class Repeatable(Protocol):
    """Evaluates plans, and can do so on other images."""

    images: int  # that a plan is evaluated on

    def on(self, images: Tensor, labels: Tensor) -> Evaluator:
        """Return the same evaluator with other images `[N, C, H, W]` and labels `[N]`."""


def price(plans: int, images: int) -> int:
    """Return what a second look at so many plans costs, in whole evaluation equivalents."""
    return math.ceil(plans * images / EQUIVALENT)


def rescored(found: SearchResult, evaluate: Any, images: Tensor, labels: Tensor) -> SearchResult:
    """Return the search with the best of its leading plans by their mean reward on all images.

    A search takes the maximum of many noisy rewards, which is too good for the plan that has it;
    on further images the best plans are compared anew.  images `[M, C, H, W]`, labels `[M]`.
    """
    if not isinstance(evaluate, Repeatable):
        raise UserError(
            f"rescore: plans that {type(evaluate).__name__} evaluates cannot be scored on other "
            "images; take search.rescore out"
        )
    again = evaluate.on(images, labels)
    share = len(images) / (len(images) + evaluate.images)
    rows: list[dict[str, Any]] = []
    for plan, reward in found.leaders:
        second = again.evaluate(plan)
        both = (1 - share) * reward + share * second.reward
        rows.append(
            {"plan": plan.digest, "reward": both, "first": reward, "second": second.reward,
             "cost": second.cost}
        )  # fmt: skip
    best = max(range(len(rows)), key=lambda i: rows[i]["reward"])
    plan, _ = found.leaders[best]
    return replace(found, plan=plan, reward=rows[best]["reward"], rescored=rows)
