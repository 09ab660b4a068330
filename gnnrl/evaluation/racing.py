"""Plans of a batch race: those that a few images show to be clearly worse are not run on all."""

# P: plans of one batch   N: images of the first look

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gnnrl.evaluation.base import Evaluation
from gnnrl.evaluation.one_shot import Evaluator
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan

CLEARLY = 2.0
"""Standard errors of the paired difference to the best plan beyond which a plan is behind."""

STOPPED = "stopped"
"""Status of a plan that was not run on all images; its reward is extrapolated."""


class Racing:
    """Evaluates plans that are given together.

    Each is looked at by `first`, on a few of the reward images.  Of those whose losses there,
    image by image, are clearly above the best plan's, the worse go no further, at most half of all;
    the others are evaluated by `full` as without a race.  Results depend on the plans of the
    batch, not on their order.
    """

    races = True  # the loop hands it the plans of a batch together

    def __init__(self, first: Evaluator, full: Evaluator) -> None:
        self._first, self._full = first, full
        self.on, self.images = full.on, full.images

    @property
    def graph(self) -> ComputationalGraph:
        return self._full.graph

    @property
    def cost(self) -> float:
        """Evaluation equivalents of a plan that is run on all images."""
        return self._first.cost + self._full.cost

    def failed(self, plan: PruningPlan, reason: str) -> Evaluation:
        """The evaluation of a plan that gave none."""
        return self._full.failed(plan, reason)

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Evaluation]:
        """Evaluate a batch of plans; a plan alone does not race."""
        if len(plans) < 2:
            return self._full(plans)
        logits = [self._first.logits(plan) for plan in plans]
        looks = [self._first.rated(plan, x) for plan, x in zip(plans, logits, strict=True)]
        stops = behind(torch.stack([_losses(x, self._first.labels) for x in logits]))
        rest = iter(self._full([p for p, stop in zip(plans, stops, strict=True) if not stop]))
        found = [look if stop else next(rest) for look, stop in zip(looks, stops, strict=True)]
        going = np.flatnonzero(~stops)
        gain = float(np.mean([found[i].reward - looks[i].reward for i in going]))
        below = math.nextafter(max(found[i].reward for i in going), -math.inf)
        return [
            replace(e, reward=min(e.reward + gain, below), status=STOPPED)
            if stop
            else replace(e, cost=e.cost + self._first.cost)
            for e, stop in zip(found, stops, strict=True)
        ]


def behind(losses: Tensor) -> np.ndarray:
    """Which plans stop, bool `[P]`, by their losses on the same images `[P, N]`."""
    mean = losses.mean(1)
    lag = losses - losses[mean.argmin()]
    error = lag.std(1) / math.sqrt(losses.shape[1])
    clear = (lag.mean(1) > CLEARLY * error).numpy()  # the best lags by 0, which is not above 0
    worst = np.argsort(-mean.numpy(), kind="stable")
    stops = np.zeros(len(losses), dtype=bool)
    stops[[i for i in worst if clear[i]][: len(losses) // 2]] = True
    return stops


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every image; that of a network without finite numbers is beyond others."""
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    return losses.nan_to_num(nan=1e6, posinf=1e6).cpu()
