"""Space `weights`: the fraction of single weights that each layer keeps."""

# L: layers

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget, largest
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.channels import View
from gnnrl.search.spaces.base import PlanSpace

if TYPE_CHECKING:
    from torch_geometric.data import Data

LEAST_DENSITY = 0.001
"""No layer loses more than 99.9 % of its weights."""


class WeightSpace(PlanSpace):
    """Which share of its weights each layer keeps, within a budget of parameters.

    An action holds a density in [0, 1] for each layer; it is scaled by the one factor that uses
    up the budget.  The largest weights are kept.
    Raises `UserError` for a budget of another resource, and where it cannot be met.
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
        """Return the plan of densities `[L]`, on budget."""
        wanted = self.numbers(action, "densities")
        return PruningPlan(
            {}, weight_sparsity=sparsity_of(self.names, wanted, self._weights, self._limit)
        )

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return the densities `[L]` after one more step."""
        before = np.ones(self.size) if keep is None else keep
        return np.maximum(before * np.clip(action, 0.0, 1.0), LEAST_DENSITY)

    def met(self, keep: np.ndarray) -> bool:
        """Whether these densities meet the budget without being scaled."""
        return float(keep @ self._weights) <= self._limit

    def uniform(self) -> PruningPlan:
        """Return the control: the same density everywhere."""
        return self.plan(np.full(self.size, 0.5))

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the dense parameters that are left."""
        return self.cost(plan).parameters / self.dense.parameters

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph with these densities of the layers `[L]` (None: 1)."""
        density = np.ones(self.size) if keep is None else keep
        slack = 1.0 - self._limit / max(float(density @ self._weights), 1e-12)
        return self._view.with_density(density, slack)


def sparsity_of(
    names: Sequence[str], wanted: np.ndarray, weights: np.ndarray, limit: float
) -> dict[str, float]:
    """Return the sparsity of each layer that loses weights: densities `[L]` scaled onto a limit.

    weights `[L]`: of each layer.  limit: how many all of them keep.
    """
    wanted = np.clip(wanted, LEAST_DENSITY, 1.0)

    def scaled(factor: float) -> np.ndarray:
        return np.clip(factor * wanted, LEAST_DENSITY, 1.0)

    factor, _ = largest(
        lambda factor: scaled(factor) @ weights <= limit, 0.0, 1.0 / wanted.min(), steps=60
    )
    density = scaled(factor)
    kept = np.maximum(np.floor(density * weights), 1.0)
    spare = int(limit - kept.sum())
    room = np.argsort(kept - density * weights, kind="stable")[: max(spare, 0)]
    kept[room] = np.minimum(kept[room] + 1, weights[room])
    named = dict(zip(names, (1.0 - kept / weights).tolist(), strict=True))
    return {name: value for name, value in named.items() if value > 0}
