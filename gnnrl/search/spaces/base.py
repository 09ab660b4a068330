"""What the search spaces share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from gnnrl.errors import UserError
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan

if TYPE_CHECKING:
    from torch_geometric.data import Data


class PlanSpace(ABC):
    """A search space over the plans of one graph; an action has `size` entries."""

    graph: ComputationalGraph
    size: int

    @abstractmethod
    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan of an action `[size]`, on budget."""

    @abstractmethod
    def uniform(self) -> PruningPlan:
        """Return the plan that prunes the same everywhere."""

    def controls(self) -> dict[str, PruningPlan]:
        """Return plans that need no search, by name."""
        return {"uniform": self.uniform()}

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph with so much of it kept `[size]`; None: all."""
        raise TypeError(f"{type(self).__name__} shows no graph")

    def wanted(self, entries: np.ndarray) -> np.ndarray:
        """Return what an action's entries `[size]` ask to keep, before they are on budget."""
        return entries

    def partly(self, entries: np.ndarray) -> Data:
        """Return the graph when these first entries of an action are decided, the rest whole."""
        done, keep = len(entries), np.ones(self.size)
        keep[:done] = self.wanted(np.append(entries, keep[done:]))[:done]
        return self.observation(keep)

    def numbers(self, action: ArrayLike, what: str) -> np.ndarray:
        """Return an action as float64 `[size]`; raise `UserError` for another shape, NaN, infinity.

        what: what its entries are called, such as "keep ratios".
        """
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (self.size,):
            raise UserError(f"an action has {self.size} {what}, got shape {values.shape}")
        if not np.isfinite(values).all():
            raise UserError(f"an action has {self.size} finite {what}, got NaN or infinity")
        return values

    def random(self, generator: torch.Generator) -> np.ndarray:
        """Return a random action `[size]`: independent numbers in [0, 1)."""
        return torch.rand(self.size, generator=generator, dtype=torch.float64).numpy()

    def sample(self, generator: torch.Generator) -> PruningPlan:
        """Return a random plan on budget."""
        return self.plan(self.random(generator))

    def cost(self, plan: PruningPlan) -> Cost:
        """Return the cost of a plan, counted on the graph."""
        return cost(self.graph, plan)
