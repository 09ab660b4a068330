"""What decisions are worth, as far as single moves tell: a belief about each, by itself."""

# A: decisions

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LEAST = 1e-3  # a belief never gets more certain than this share of the first variance
MEMORY = 0.02  # weight of the last surprise in the unit


class Worth:
    """Normal beliefs about the worth of decisions, independent of each other.

    A move that exchanges some of what is chosen changes the reward by the worth of what comes less
    that of what goes; what was not foreseen of it is shared out by how uncertain each of them is
    (a Kalman filter with a diagonal covariance).  Drawing from the beliefs (Thompson 1933) tries
    what is promising and what is not yet known alike.
    """

    def __init__(self) -> None:
        self.mean: Tensor | None = None  # [A]
        self.variance = torch.zeros(0, dtype=torch.float64)  # [A], in units of `unit` squared
        self.unit = 0.0  # standard deviation of a worth, in the unit of the reward

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """A worth for every decision [A], drawn from the beliefs; any where there are none."""
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        if self.mean is None or self.unit == 0.0:
            return noise
        return self.mean + self.unit * self.variance.sqrt() * noise

    def learn(self, before: Tensor, after: Tensor, change: float) -> None:
        """Take into account what a move from one subset [A] to another did to the reward."""
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
        surprise = change - float(sign @ self.mean[moved])
        self._rescale(surprise, total)
        share = self.variance[moved] / total
        self.mean[moved] += share * sign * surprise
        self.variance[moved] = (self.variance[moved] * (1 - share)).clamp(min=LEAST)

    def _rescale(self, surprise: float, total: float) -> None:
        """Let the unit follow how large surprises are beside what was thought possible."""
        if self.unit == 0.0:
            self.unit = abs(surprise) / math.sqrt(total)
            return
        ratio = min(surprise**2 / (total * self.unit**2), 4.0)
        self.unit *= math.sqrt(1.0 + MEMORY * (ratio - 1.0))

    def state_dict(self) -> dict[str, Any]:
        """Return the beliefs."""
        mean = None if self.mean is None else self.mean.clone()
        return {"mean": mean, "variance": self.variance.clone(), "unit": self.unit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        vars(self).update({k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()})
