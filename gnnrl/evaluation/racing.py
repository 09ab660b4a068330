"""Plans of a batch race: those that a few images show to be clearly worse are not run on all."""

# P: plans of one batch   N: images of the first evaluation

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gnnrl.evaluation.base import Evaluation, Evaluator, Plan
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.tasks.base import Outputs, Targets

CLEARLY = 2.0
"""Standard errors of the paired difference to the best plan beyond which a plan is stopped."""

STOPPED = "stopped"
"""Status of a plan that was not run on all images; its reward is extrapolated."""


class Racing(Evaluator):
    """Evaluates the plans of a batch together.

    Each is first scored by `first`, on a few of the reward images.  Plans that are significantly
    worse than the best one there (paired, 2 standard errors) are stopped, at most half of a batch;
    the others are evaluated by `full` as without a race.  Results depend on the plans of the
    batch, not on their order.  cost: of a plan that is run on all images.
    """

    batched = True

    def __init__(self, first: OneShot, full: OneShot) -> None:
        self._first, self._full = first, full
        self.graph, self.images, self.cost = full.graph, full.images, first.cost + full.cost

    def on(self, images: Tensor, labels: Targets) -> OneShot:
        """Return the evaluator of all images, without a race, on others."""
        return self._full.on(images, labels)

    def failed(self, plan: Plan, reason: str) -> Evaluation:
        """Return the evaluation of a plan that gave no result."""
        return self._full.failed(plan, reason)

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Evaluate a batch of plans; a plan alone does not race."""
        if len(plans) < 2:
            return self._full(plans)
        outputs = [self._first.outputs(plan) for plan in plans]
        early = [self._first.scored(plan, x) for plan, x in zip(plans, outputs, strict=True)]
        stops = behind(torch.stack([self._losses(x) for x in outputs]))
        rest = iter(self._full([p for p, stop in zip(plans, stops, strict=True) if not stop]))
        found = [seen if stop else next(rest) for seen, stop in zip(early, stops, strict=True)]
        going = np.flatnonzero(~stops)
        gain = float(np.mean([found[i].reward - early[i].reward for i in going]))
        below = math.nextafter(max(found[i].reward for i in going), -math.inf)
        return [
            replace(e, reward=min(e.reward + gain, below), status=STOPPED)
            if stop
            else replace(e, cost=e.cost + self._first.cost)
            for e, stop in zip(found, stops, strict=True)
        ]

    def _losses(self, outputs: Outputs) -> Tensor:
        """Loss of every image; that of a network without finite numbers is beyond others."""
        losses = self._first.task.losses(outputs, self._first.labels).double()
        return losses.nan_to_num(nan=1e6, posinf=1e6).cpu()


def behind(losses: Tensor) -> np.ndarray:
    """Return which plans are stopped, bool `[P]`, by their losses on the same images `[P, N]`."""
    mean = losses.mean(1)
    lag = losses - losses[mean.argmin()]
    error = lag.std(1) / math.sqrt(losses.shape[1])
    clear = (lag.mean(1) > CLEARLY * error).numpy()  # the best lags by 0, which is not above 0
    worst = np.argsort(-mean.numpy(), kind="stable")
    stops = np.zeros(len(losses), dtype=bool)
    stops[[i for i in worst if clear[i]][: len(losses) // 2]] = True
    return stops
