"""Value estimates of the decisions of a subset: a linear model of the reward."""

# M: subsets tried   A: decisions   P: parts   F: features, A + P

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl.agents.ridge import ridge
from gnnrl.agents.saved import Saved

PENALTIES = 10.0 ** torch.arange(-7, 3, dtype=torch.float64)  # of ridge, in mean variances
ENOUGH = 8  # subsets tried before the first fit
GROWTH = 1.05  # of the number of subsets, from one fit to the next


class Additive(Saved):
    """reward = mean + sum_i (w_i + w_part(i)) (m_i - centre_i), by ridge regression.

    The decisions of a part share a weight, so that few subsets are enough to estimate how many of
    each part to keep.
    """

    STATE = ("chosen", "rewards", "weights", "value", "centre", "fitted")

    def __init__(self, decay: float) -> None:
        """decay: weight of a subset for every update since it was tried."""
        self.decay = decay
        self.chosen = torch.zeros(0, 0, dtype=torch.bool)  # [M, A]
        self.rewards = torch.zeros(0, dtype=torch.float64)
        self.weights = torch.zeros(0, dtype=torch.float64)
        self.value: Tensor | None = None  # [A]
        self.centre = torch.zeros(0, dtype=torch.float64)
        self.fitted = 0  # subsets at the last fit

    def add(self, chosen: Tensor, rewards: Tensor, part: Tensor) -> None:
        """Add subsets, bool [B, A], with their rewards [B]; part [A]: that of each decision."""
        known = self.chosen if len(self.chosen) else chosen[:0]
        self.chosen = torch.cat([known, chosen])
        self.rewards = torch.cat([self.rewards, rewards.double()])
        fresh = torch.ones(len(rewards), dtype=torch.float64)
        self.weights = torch.cat([self.weights * self.decay, fresh])
        if len(self.chosen) >= max(ENOUGH, GROWTH * self.fitted):
            self._fit(part)

    def predicted(self, chosen: Tensor) -> Tensor:
        """Return the rewards [B] of subsets [B, A] up to a constant; zeros before a first fit."""
        if self.value is None:
            return torch.zeros(len(chosen), dtype=torch.float64)
        return (chosen.double() - self.centre) @ self.value

    def _fit(self, part: Tensor) -> None:
        chosen = self.chosen.double()
        parts = int(part.max()) + 1
        together = torch.zeros(len(part), parts, dtype=torch.float64)
        together[torch.arange(len(part)), part] = 1.0
        together /= together.sum(0).sqrt()
        features = torch.cat([chosen, chosen @ together], dim=1)  # [M, F]
        share = self.weights / self.weights.sum()
        variance = float((share @ (features - share @ features).square()).sum())
        penalties = PENALTIES * max(variance, 1e-12) / len(chosen)
        slopes, centre, _ = ridge(features, self.rewards, self.weights, penalties)
        self.value = slopes[: len(part)] + together @ slopes[len(part) :]
        self.centre, self.fitted = centre[: len(part)], len(chosen)
