"""Space `filters`: which single filters are kept, a fixed number over the whole network."""

# G: groups   U: units   O: operations   N: nodes (operations, groups, then units)   P: parts

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided
from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_filters, kept_units
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl.subsets import Choice
from gnnrl.search.observations.filters import filter_observation, ranks
from gnnrl.search.spaces.channel_order import needed
from gnnrl.search.spaces.subset import SubsetSpace, refuse_other_budgets

if TYPE_CHECKING:
    from torch_geometric.data import Data


class FilterSpace(SubsetSpace):
    """Which filters are kept: exactly `round((1 - sparsity) * filters)`, from any layers.

    Filters that must be removed together (the channels of a group) are one decision and count
    once; where no layers are coupled, as in BasicCNN, decisions are filters.  No layer is emptied.

    importance: of the channels, for the observation and the agent `ranking`.
    min_channels, min_fraction: what every group keeps at least, as a number and as a fraction.
    """

    name, things = "filters", "filters"

    def __init__(
        self,
        graph: ComputationalGraph,
        importance: Importance,
        budget: Budget,
        *,
        min_channels: int = 1,
        min_fraction: float = 0.0,
    ) -> None:
        self._importance = importance
        choice = filter_choice(graph, importance, budget, min_channels, min_fraction)
        super().__init__(graph, budget, choice)
        self.names = [group.name for group in graph.groups]

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan that keeps the filters chosen, bool `[U]`."""
        return self.decide(action).plan

    def decide(self, action: np.ndarray) -> Decided:
        """Return the plan that keeps the filters chosen, bool `[U]`, with its units."""
        keep = self.chosen(action)
        return Decided(PruningPlan(kept_filters(self.graph, keep)), keep)

    def kept(self, plan: PruningPlan) -> np.ndarray:
        """Return the action of a plan, bool `[U]`."""
        return kept_units(self.graph, plan.kept)

    def _observation(self) -> Data:
        """The network's graph, with a node for every filter and how many are kept."""
        return filter_observation(self.graph, self._importance, self.choice)

    def _ranks(self) -> Tensor:
        return ranks(self._seen)


def filter_choice(
    graph: ComputationalGraph,
    importance: Importance | None,
    budget: Budget,
    min_channels: int = 1,
    min_fraction: float = 0.0,
) -> Choice:
    """Return how many filters are kept, in all and at least of each group.

    Where an operation reads some of a group only (after a split), its most important unit is a
    part of its own that is always kept, so that no operation is left without input.
    Raises `UserError` for a budget of another resource, or one that would empty a layer.
    """
    refuse_other_budgets(FilterSpace, budget)
    if not graph.groups:
        raise UserError("the network has no filter that can be pruned (is all protected?)")
    keep = round(budget.fraction * graph.num_units)
    sizes = [group.size for group in graph.groups]
    part = np.repeat(np.arange(len(sizes)), sizes)
    floors = [
        min(size, max(1, min_channels, math.ceil(min_fraction * size - 1e-9))) for size in sizes
    ]
    score = np.zeros(graph.num_units)
    if importance is not None:
        score = np.concatenate([importance[group.name].double().numpy() for group in graph.groups])
    rank = np.argsort(np.argsort(-score, kind="stable"))  # ties are broken by index
    for unit in needed(graph, rank):
        floors[part[unit]] = max(floors[part[unit]] - 1, 0)
        part[unit] = len(floors)
        floors.append(1)
    least = sum(floors)
    if keep < least:
        raise UserError(
            f"budget.sparsity {budget.value} leaves {keep} of {graph.num_units} filters, but "
            f"its {len(graph.groups)} layers or groups of layers need {least} so that none is "
            "emptied; lower the sparsity, min_channels or min_fraction"
        )
    return Choice(keep, torch.from_numpy(part), torch.tensor(floors))
