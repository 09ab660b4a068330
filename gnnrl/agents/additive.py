"""What each decision of a subset is worth, by all subsets tried: a linear model of the reward."""

# M: subsets tried   A: decisions   P: parts   F: features, A + P

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl.agents.saved import Saved

SHRINKAGE = tuple(10.0**power for power in range(-7, 3))  # ridge penalties, in shares of the trace
ENOUGH = 8  # subsets tried before anything is said
GROWTH = 1.05  # it is fitted anew when so many times as many subsets were tried


class Additive(Saved):
    """reward = mean + sum_i (w_i + w_part(i)) (m_i - centre_i), by ridge regression.

    The weight that the decisions of a part share lets few subsets already tell how many of each
    part should stay.  The penalty is the one with the least squared error when every subset is left
    out in turn, exactly.
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
        """Take subsets [B, A] and their rewards [B] into account."""
        known = self.chosen if len(self.chosen) else chosen[:0]
        self.chosen = torch.cat([known, chosen])
        self.rewards = torch.cat([self.rewards, rewards.double()])
        fresh = torch.ones(len(rewards), dtype=torch.float64)
        self.weights = torch.cat([self.weights * self.decay, fresh])
        if len(self.chosen) >= max(ENOUGH, GROWTH * self.fitted):
            self._fit(part)

    def predicted(self, chosen: Tensor) -> Tensor:
        """The reward of subsets [B, A], but for a constant: [B]; zero before anything is known."""
        if self.value is None:
            return torch.zeros(len(chosen), dtype=torch.float64)
        return (chosen.double() - self.centre) @ self.value

    def _fit(self, part: Tensor) -> None:
        chosen = self.chosen.double()
        parts = int(part.max()) + 1
        together = torch.zeros(len(part), parts, dtype=torch.float64)
        together[torch.arange(len(part)), part] = 1.0
        together /= together.sum(0).sqrt()
        slopes, self.centre = ridge(
            torch.cat([chosen, chosen @ together], dim=1), self.rewards, self.weights
        )
        self.value = slopes[: len(part)] + together @ slopes[len(part) :]
        self.centre, self.fitted = self.centre[: len(part)], len(chosen)


def ridge(features: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression with an intercept; return the slopes [F] and the centre [F].

    features [M, F], targets [M], weights [M].  The smaller of the two Gram matrices is decomposed.
    """
    share = weights / weights.sum()
    mean, centre = share @ targets, share @ features
    x = (features - centre) * share.sqrt().unsqueeze(1)
    y = (targets - mean) * share.sqrt()
    if len(x) <= x.shape[1]:
        power, u = torch.linalg.eigh(x @ x.T)
    else:
        power, v = torch.linalg.eigh(x.T @ x)
        u = x @ v / power.clamp(min=1e-300).sqrt()
    real = power > 1e-11 * power.max().clamp(min=1e-300)
    power, u = power[real], u[:, real]
    told = u.T @ y
    best, chosen = torch.tensor(torch.inf), torch.zeros_like(power)
    for part in SHRINKAGE:
        penalty = part * power.sum() / len(y)
        shrunk = power / (power + penalty)
        leverage = (u.square() @ shrunk + share).clamp(max=0.9999)
        error = ((y - u @ (shrunk * told)) / (1 - leverage)).square().sum()
        if error < best:
            best, chosen = error, 1.0 / (power + penalty)
    return x.T @ (u @ (chosen * told)), centre
