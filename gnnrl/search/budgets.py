"""One search for several budgets: the seed of an episode says which of them it has to meet."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from gnnrl.errors import UserError
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl.env import Step
from gnnrl.search.env import Evaluate, PruningEnv, Space
from gnnrl.search.front import Front
from gnnrl.search.spaces.channels import ChannelSpace

AT = " at "
"""Between the name of a control and its budget, where that is not the one asked for."""


class BudgetsEnv(PruningEnv):
    """Prune a network to one of several budgets.

    The budget is what an agent sees of it: `slack` and the prior at this budget are features.  All
    observations name the same `pool`, so that what is learned of single decisions is shared.
    """

    name = "pruning to several budgets"

    def __init__(
        self,
        space: Space,
        budgets: Sequence[float],
        evaluate: Evaluate,
        max_steps: int = 1,
        in_turn: bool = False,
    ) -> None:
        """budgets: further fractions of the resource of the space's own budget, the first one.

        Raises `UserError` where the space has one budget only.
        """
        super().__init__(space, evaluate, max_steps, in_turn)
        if not isinstance(space, ChannelSpace):
            raise UserError(
                f"search.budgets: {type(space).__name__} has one budget only; take the space "
                "channels, or leave search.budgets out"
            )
        others = [other for other in dict.fromkeys(budgets) if other != space.budget.value]
        self.spaces: list[ChannelSpace] = [space, *map(space.at, others)]
        self.starts, self._start = len(self.spaces), 0
        self._firsts = [_pooled(own.observation()) for own in self.spaces]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        """Start from the whole network, with the budget that the seed says."""
        self._start = (seed or 0) % self.starts
        self.space, self._first = self.spaces[self._start], self._firsts[self._start]
        return super().reset(seed=seed)

    def step(self, action: Any) -> Step:
        """Prune; `info["budget"]` is the fraction that the plan has to meet."""
        seen, reward, terminated, truncated, info = super().step(action)
        if terminated:
            info = {**info, "budget": self.spaces[self._start].budget.value}
        return _pooled(seen), reward, terminated, truncated, info

    def front(self, plans: Sequence[PruningPlan]) -> Front:
        """Return the front of a plan for each budget, in the order of the budgets."""
        pairs = zip(self.spaces, plans, strict=True)
        return Front.of({float(space.budget.value): (space, plan) for space, plan in pairs})

    def comparisons(self) -> Mapping[str, PruningPlan]:
        """Return the controls of every budget, those of the first by their plain names."""
        found: dict[str, PruningPlan] = {}
        for start, space in enumerate(self.spaces):
            end = f"{AT}{space.budget.value:g}" if start else ""
            found |= {f"{name}{end}": plan for name, plan in space.controls().items()}
        return found


def _pooled(seen: Data) -> Data:
    seen = copy.copy(seen)
    seen.pool = torch.zeros(1, dtype=torch.int64)
    return seen
