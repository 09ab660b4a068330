"""What the search spaces share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import ArrayLike

from gnnrl.errors import UserError
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan


class PlanSpace(ABC):
    """A search space over the plans of one graph; an action has `size` entries."""

    graph: ComputationalGraph
    size: int

    @abstractmethod
    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan of an action `[size]`, on budget."""

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
