"""Space `weights`: the fraction of single weights that stay, for each layer."""

# L: layers

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget, largest
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.channels import View
from gnnrl.search.spaces.action import numbers

if TYPE_CHECKING:
    from torch_geometric.data import Data

LEAST_DENSITY = 0.001
"""No layer loses more than 99.9 % of its weights."""


class WeightSpace:
    """Which share of its weights each layer keeps, within a budget of parameters.

    An action holds a density in [0, 1] for each layer; it is scaled by the one factor that uses
    up the budget.  The largest weights stay.
    """

    action_kind = "continuous"

    def __init__(
        self, graph: ComputationalGraph, importance: Importance, budget: Budget | float = 0.5
    ) -> None:
        self.budget = Budget.of(budget, "parameters")
        if self.budget.resource != "parameters":
            raise UserError(
                f"space weights keeps every shape, so it cannot meet a budget of "
                f"{self.budget.resource}; give budget.parameters"
            )
        self.graph, self.dense = graph, cost(graph)
        self.names = [name for name in graph.layers if name not in graph.protected]
        self.size = len(self.names)
        shapes = [graph.parameters[graph.layers[name].parameters[0]].shape for name in self.names]
        self._weights = np.array([math.prod(shape) for shape in shapes], dtype=np.float64)
        rest = self.dense.parameters - self._weights.sum()
        self._limit = self.budget.fraction * self.dense.parameters - rest
        if self._limit < LEAST_DENSITY * self._weights.sum() + self.size:
            raise UserError(
                f"budget.parameters {self.budget.fraction} cannot be met: "
                f"{rest / self.dense.parameters:.4f} of the parameters are no weights of layers; "
                "raise the budget"
            )
        self._view = View(graph, importance, decide=self.names)

    def plan(self, action: np.ndarray) -> PruningPlan:
        """The plan of densities `[L]`, on budget."""
        density = self.density(action)
        kept = np.maximum(np.floor(density * self._weights), 1.0)
        spare = int(self._limit - kept.sum())
        room = np.argsort(kept - density * self._weights, kind="stable")[: max(spare, 0)]
        kept[room] = np.minimum(kept[room] + 1, self._weights[room])
        sparsity = 1.0 - kept / self._weights
        named = dict(zip(self.names, sparsity.tolist(), strict=True))
        return PruningPlan({}, weight_sparsity={k: v for k, v in named.items() if v > 0})

    def density(self, action: np.ndarray) -> np.ndarray:
        """Densities `[L]`: the action scaled onto the budget."""
        wanted = np.clip(numbers(action, self.size, "densities"), LEAST_DENSITY, 1.0)

        def scaled(factor: float) -> np.ndarray:
            return np.clip(factor * wanted, LEAST_DENSITY, 1.0)

        factor, _ = largest(
            lambda factor: scaled(factor) @ self._weights <= self._limit,
            0.0,
            1.0 / wanted.min(),
            steps=60,
        )
        return scaled(factor)

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Densities after one more cut `[L]`."""
        before = np.ones(self.size) if keep is None else keep
        return np.maximum(before * np.clip(action, 0.0, 1.0), LEAST_DENSITY)

    def met(self, keep: np.ndarray) -> bool:
        """Whether these densities meet the budget without being scaled."""
        return float(keep @ self._weights) <= self._limit

    def uniform(self) -> PruningPlan:
        """The same density everywhere."""
        return self.plan(np.full(self.size, 0.5))

    def random(self, generator: torch.Generator) -> np.ndarray:
        """A random action: independent densities."""
        return torch.rand(self.size, generator=generator, dtype=torch.float64).numpy()

    def sample(self, generator: torch.Generator) -> PruningPlan:
        """A random plan on budget."""
        return self.plan(self.random(generator))

    def cost(self, plan: PruningPlan) -> Cost:
        """Cost of a plan, counted on the graph."""
        return cost(self.graph, plan)

    def used(self, plan: PruningPlan) -> float:
        """Fraction of the dense parameters that are left."""
        return self.cost(plan).parameters / self.dense.parameters

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """The network's graph when the layers keep these shares of their weights `[L]`."""
        density = np.ones(self.size) if keep is None else keep
        slack = 1.0 - self._limit / max(float(density @ self._weights), 1e-12)
        return self._view.with_density(density, slack)
