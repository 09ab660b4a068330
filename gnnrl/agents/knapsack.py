"""The plan of least error that a budget allows, by measured errors and costs."""

# A: decisions   L: levels of a decision

from __future__ import annotations

import numpy as np

from gnnrl.agents.menu import Menu

BINS = 2000
"""Parts into which the room of the budget is divided."""

ROUNDS = 8
"""Solutions, each with costs that are linear around the one before."""


def solve(menu: Menu, weights: np.ndarray) -> np.ndarray:
    """Return the level of each decision `[A]` with the least sum of weighted errors.

    weights `[A]`: of the errors.  The costs of pairs are linearised, again and again around the
    solution so far; the best solution within the limit counts, else the last one.
    """
    x, errors = menu.removed.numpy(), menu.errors.numpy() * weights[:, None]
    rows, pairs = np.arange(len(x)), menu.pairs.numpy() + menu.pairs.numpy().T
    at, best, least = np.zeros(len(x)), None, np.inf
    for _ in range(ROUNDS):
        slope = menu.linear.numpy() + pairs @ at
        levels = knapsack(errors, slope[:, None] * (x - at[:, None]), menu.limit - menu.cost(at))
        found, total = x[rows, levels], float(errors[rows, levels].sum())
        if menu.cost(found) <= menu.limit and total < least:
            best, least = levels, total
        at = (at + found) / 2 if at.any() else found
    return levels if best is None else best


def knapsack(errors: np.ndarray, costs: np.ndarray, limit: float) -> np.ndarray:
    """Return one level of each decision `[A]`, the least sum of errors with costs in the limit.

    errors, costs `[A, L]`.  By dynamic programming over the decisions and the budget used, in
    `BINS` parts; the cheapest levels where even they exceed the limit.
    """
    above = costs - costs.min(1, keepdims=True)
    room = limit - costs.min(1).sum()
    if room <= 0:
        return above.argmin(1)
    bins = np.round(above / room * BINS).astype(np.int64)
    best, chosen = np.zeros(BINS + 1), []
    for error, used in zip(errors, bins, strict=True):
        offers = np.full((len(error), BINS + 1), np.inf)
        for level in np.flatnonzero(used <= BINS):
            offers[level, used[level] :] = best[: BINS + 1 - used[level]] + error[level]
        chosen.append(offers.argmin(0))
        best = offers.min(0)
    place, levels = BINS, np.empty(len(errors), dtype=np.int64)
    for decision in reversed(range(len(errors))):
        levels[decision] = chosen[decision][place]
        place -= bins[decision, levels[decision]]
    return levels
