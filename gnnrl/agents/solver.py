"""Solve for the best plan by measured errors, then search the weights of the errors (SPDY)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.knapsack import solve
from gnnrl.agents.menu import HasMenu, Menu
from gnnrl.agents.sensitivity import Sensitivity, require_continuous
from gnnrl.agents.settings import MoveSettings, split
from gnnrl.errors import UserError
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import ObservationSpec

SPREAD = 10.0
"""A decision's error counts up to so many times more or less."""


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
