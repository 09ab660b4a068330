"""What the spaces that keep a fixed number of filters or weights share."""

# A: decisions

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl import subsets
from gnnrl.rl.subsets import Choice
from gnnrl.search.spaces.base import PlanSpace

if TYPE_CHECKING:
    from torch_geometric.data import Data


class SubsetSpace(PlanSpace):
    """Plans that keep exactly `round((1 - sparsity) * size)` filters or weights, from any layers.

    name: of the space.  things: what is kept.  choice: how many, in all and of each layer.
    """

    action_kind = "subset"
    name: str
    things: str

    def __init__(self, graph: ComputationalGraph, budget: Budget, choice: Choice) -> None:
        self.graph, self.budget, self.dense = graph, budget, cost(graph)
        self.choice, self.size, self.keep = choice, choice.size, choice.keep
        self._seen = self._observation()

    @abstractmethod
    def kept(self, plan: PruningPlan) -> np.ndarray:
        """Return the action of a plan, bool `[A]`."""

    @abstractmethod
    def _observation(self) -> Data:
        """Return what an agent sees; it is the same whatever is kept."""

    @abstractmethod
    def _ranks(self) -> Tensor:
        """Return a number for each decision `[A]`: the higher, the more important in its layer."""

    def chosen(self, action: np.ndarray) -> np.ndarray:
        """Return an action as bool `[A]`; raise `UserError` for one that makes no plan."""
        given = np.asarray(action)
        if given.shape == (self.size,) and np.isin(given, (0, 1)).all():
            wrong = subsets.choice_fault(given.astype(bool), self.choice)
        else:
            things = f"{self.size} {self.things}"
            wrong = f"shape {given.shape}, expected a yes or no for each of {things}"
        if wrong:
            raise UserError(f"space {self.name} cannot make a plan of this action: {wrong}")
        return given.astype(bool)

    def random(self, generator: torch.Generator) -> np.ndarray:
        """Return a random action: all decisions have the same chance."""
        order = subsets.draw(torch.zeros(self.size), self.choice, generator)
        return subsets.as_mask(order, self.size)

    def uniform(self) -> PruningPlan:
        """Return the control: the same fraction everywhere, what is most important there."""
        best = subsets.best(self._ranks(), self.choice)
        return self.plan(subsets.as_mask(best, self.size))

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return the action: everything is chosen in one step."""
        return np.asarray(action)

    def met(self, keep: np.ndarray) -> bool:
        """Whether as many are chosen as the sparsity asks for."""
        return int(np.sum(keep)) == self.keep

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction that is kept."""
        return float(self.kept(plan).mean())

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return what an agent sees, with how many are kept."""
        return self._seen


def refuse_other_budgets(space: type[SubsetSpace], budget: Budget) -> None:
    """Raise `UserError` for a budget of anything but sparsity."""
    if budget.resource != "sparsity":
        raise UserError(
            f"space {space.name} keeps a number of {space.things}, it cannot meet a budget of "
            f"{budget.resource}; give budget.sparsity and set the others to null"
        )
