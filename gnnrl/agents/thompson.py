"""Value estimates of single decisions, as far as moves tell: a normal belief about each."""

# A: decisions

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnrl.agents.saved import Saved

SMALLEST = 1e-3  # variance of a belief, as a share of the first variance
RATE = 0.02  # weight of the last prediction error in the unit


class Beliefs(Saved):
    """Normal beliefs about the values of decisions, independent of each other.

    A swap changes the reward by the values of what is added less those of what is removed; the
    prediction error is distributed over these decisions in proportion to their variance (a diagonal
    Kalman filter).  Drawing from the beliefs (Thompson 1933) balances what is promising and what is
    not known yet.
    """

    STATE = ("mean", "variance", "unit")

    def __init__(self) -> None:
        self.mean: Tensor | None = None  # [A]
        self.variance = torch.zeros(0, dtype=torch.float64)  # [A], in units of `unit` squared
        self.unit = 0.0  # standard deviation of a value, in the unit of the reward

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw a value for every decision, [A]; standard normal before anything is known."""
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        if self.mean is None or self.unit == 0.0:
            return noise
        return self.mean + self.unit * self.variance.sqrt() * noise

    def learn(self, before: Tensor, after: Tensor, change: float) -> None:
        """Learn by how much a move from one subset, bool [A], to another changed the reward."""
        if not math.isfinite(change):
            return
        if self.mean is None:
            self.mean = torch.zeros(len(before), dtype=torch.float64)
            self.variance = torch.ones(len(before), dtype=torch.float64)
        moved = (before != after).nonzero().squeeze(1)
        sign = after[moved].double() - before[moved].double()
        total = float(self.variance[moved].sum())
        if total == 0.0:
            return
        error = change - float(sign @ self.mean[moved])
        self._rescale(error, total)
        gain = self.variance[moved] / total
        self.mean[moved] += gain * sign * error
        self.variance[moved] = (self.variance[moved] * (1 - gain)).clamp(min=SMALLEST)

    def _rescale(self, error: float, total: float) -> None:
        """Let the unit follow the size of prediction errors relative to their expected size."""
        if self.unit == 0.0:
            self.unit = abs(error) / math.sqrt(total)
            return
        ratio = min(error**2 / (total * self.unit**2), 4.0)
        self.unit *= math.sqrt(1.0 + RATE * (ratio - 1.0))
