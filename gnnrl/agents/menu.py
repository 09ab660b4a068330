"""What each width of each channel group loses and costs, for agents that solve for a plan."""

# A: decisions   G: groups, which are the decisions   L: levels of one

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

LEVELS = 65
"""Widths of a group at most."""


@dataclass(frozen=True)
class Menu:
    """The levels of every decision, and what they lose and cost.

    actions `[A, L]`: in [0, 1].  removed `[A, L]`: fraction that is removed.  errors `[A, L]`: of
    this decision alone.  The cost of fractions x `[A]` is dense + linear @ x + x @ pairs @ x;
    limit: what it may be.
    """

    actions: Tensor
    removed: Tensor
    errors: Tensor
    linear: Tensor
    pairs: Tensor
    dense: float
    limit: float

    def cost(self, x: np.ndarray) -> float:
        """Return the cost of removing fractions `[A]`."""
        return float(self.dense + self.linear.numpy() @ x + x @ self.pairs.numpy() @ x)


@runtime_checkable
class HasMenu(Protocol):
    """A search space whose levels can be measured."""

    def menu(self) -> Menu | None:
        """Return the levels; None where they were not measured."""


def menu_of(
    curves: Sequence[Tensor | None],
    sizes: np.ndarray,
    floor: np.ndarray,
    cost: Callable[[np.ndarray], float],
    limit: float,
    action_of: Callable[[np.ndarray], np.ndarray],
) -> Menu:
    """Return the levels of all groups.

    curves: as `allocate` takes them; None: the group keeps all its channels.  sizes, floor `[G]`:
    channels at most and at least.  cost: of channel counts `[G]`.  limit: what they may cost.
    action_of: keep ratios `[G]` as an action `[G]`.
    """
    least = np.where([curve is None for curve in curves], sizes, floor)
    share = np.linspace(0.0, 1.0, min(LEVELS, int(sizes.max()) + 1))
    counts = np.round(sizes[:, None] - share * (sizes - least)[:, None]).astype(np.int64)
    errors = np.zeros(counts.shape)
    for row, curve, size, kept in zip(errors, curves, sizes, counts, strict=True):
        if curve is not None:
            row[:] = curve.double().numpy()[size - kept]
    errors -= errors[:, :1]
    actions = np.stack([action_of(column) for column in (counts / sizes[:, None]).T], 1)
    linear, pairs = _quadratic(sizes, cost)
    arrays = (actions, 1.0 - counts / sizes[:, None], errors, linear, pairs)
    levels, removed, residuals, first, second = map(torch.from_numpy, arrays)
    return Menu(levels, removed, residuals, first, second, cost(sizes), limit)


def _quadratic(
    sizes: np.ndarray, cost: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Cost of removing fractions x `[G]`: dense + linear @ x + x @ pairs @ x.

    Exact for convolutions and linear layers; `pairs` `[G, G]` is upper triangular.
    """
    dense, number = cost(sizes), len(sizes)

    def without(*groups: int, by: np.ndarray = sizes) -> float:
        counts = sizes.copy()
        counts[list(groups)] -= by[list(groups)]
        return cost(counts) - dense

    half = sizes // 2
    part = half / sizes
    whole = np.array([without(g) for g in range(number)])
    halves = np.array([without(g, by=half) for g in range(number)])
    bend = np.where(half > 0, part**2 - part, 1.0)
    pairs = np.diag(np.where(half > 0, (halves - part * whole) / bend, 0.0))
    linear = whole - np.diag(pairs)
    for g in range(number):
        for h in range(g + 1, number):
            pairs[g, h] = without(g, h) - whole[g] - whole[h]
    return linear, pairs
