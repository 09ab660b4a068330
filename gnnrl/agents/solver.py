"""Solve for the best plan by measured errors, then search the weights of the errors (SPDY)."""

# A: decisions   L: levels of a decision

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.menu import HasMenu, Menu
from gnnrl.agents.sensitivity import Sensitivity, require_continuous
from gnnrl.agents.settings import MoveSettings, split
from gnnrl.errors import UserError
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import ObservationSpec

BINS = 2000
"""Parts into which the room of the budget is divided."""

ROUNDS = 8
"""Solutions, each with costs that are linear around the one before."""

SPREAD = 10.0
"""A decision's error counts up to so many times more or less."""


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


class Solver(Sensitivity):
    """Decides the solution for its vector: one half counts a decision's error as measured.

    The first plan is the solution by the errors as they were measured; after it the weights of the
    errors are searched, scored by the reward (Frantar & Alistarh 2022).
    """

    name = "solver"

    def __init__(self, settings: MoveSettings | None = None) -> None:
        super().__init__(settings or MoveSettings())
        self.menu: Menu | None = None

    def prepare(self, env: GraphEnv) -> float:
        """Take the measured errors and costs from the space; this costs nothing more."""
        space = getattr(env, "space", None)
        self.menu = space.menu() if isinstance(space, HasMenu) else None
        if self.menu is None:
            raise UserError(
                "the agent solver adds up what pruning each group alone loses, which was not "
                "measured: set search.prior to reconstruction, in the space channels, or take "
                "another agent"
            )
        return 0.0

    def read(self, vector: Tensor, observation: Data) -> Any:
        """Return the levels that are best by the errors, weighted as the vector says."""
        assert self.menu is not None
        levels = solve(self.menu, SPREAD ** (2.0 * vector.double().numpy() - 1.0))
        chosen = self.menu.actions[torch.arange(len(levels)), torch.from_numpy(levels)]
        return super().read(chosen, observation)

    def state_dict(self) -> dict[str, Any]:
        """Return what hill climbing keeps, and the menu."""
        return {**super().state_dict(), "menu": self.menu and dict(vars(self.menu))}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self.menu = state["menu"] and Menu(**state["menu"])


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Solver:
    """Return the agent with these parameters."""
    (own,) = split(parameters, MoveSettings)
    require_continuous(spec.action_kind, "solver")
    return Solver(own)
