"""Space `filters`: which single filters stay, a fixed number of them over the whole network."""

# G: groups   U: units   O: operations   N: nodes (operations, groups, then units)   P: parts

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_filters, kept_units
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl import subsets
from gnnrl.rl.subsets import Choice
from gnnrl.search.observations.filters import filter_observation, ranks
from gnnrl.search.spaces.minimum_kept import choice_of

if TYPE_CHECKING:
    from torch_geometric.data import Data


class FilterSpace:
    """Which filters stay: exactly `round((1 - sparsity) * filters)`, however the layers share them.

    Filters that must go together (the channels of a group) are one decision and count once; where
    no layers are coupled, as in BasicCNN, decisions are filters.  No layer is ever emptied.

    importance: of the channels; what an agent sees of each filter, and what a criterion goes by.
    min_channels, min_fraction: what every group keeps at least, as a number and as a fraction.
    """

    action_kind = "subset"

    def __init__(
        self,
        graph: ComputationalGraph,
        importance: Importance,
        budget: Budget,
        *,
        min_channels: int = 1,
        min_fraction: float = 0.0,
    ) -> None:
        self.choice = filter_choice(graph, importance, budget, min_channels, min_fraction)
        self.graph, self.budget, self.dense = graph, budget, cost(graph)
        self.size, self.keep = graph.num_units, self.choice.keep
        self.names = [group.name for group in graph.groups]
        self._observation = filter_observation(graph, importance, self.choice)

    def plan(self, action: np.ndarray) -> PruningPlan:
        """The plan that keeps the filters chosen, bool `[U]`."""
        return self.decide(action).plan

    def decide(self, action: np.ndarray) -> Decided:
        """The plan that keeps the filters chosen, bool `[U]`, with its units."""
        chosen = np.asarray(action)
        if chosen.shape != (self.size,) or not np.isin(chosen, (0, 1)).all():
            wrong = f"shape {chosen.shape}, expected a yes or no for each of {self.size} filters"
        else:
            wrong = subsets.choice_fault(chosen.astype(bool), self.choice)
        if wrong:
            raise UserError(f"space filters cannot make a plan of this action: {wrong}")
        keep = chosen.astype(bool)
        return Decided(PruningPlan(kept_filters(self.graph, keep)), keep)

    def kept(self, plan: PruningPlan) -> np.ndarray:
        """The action that a plan stands for, bool `[U]`."""
        return kept_units(self.graph, plan.kept)

    def controls(self) -> dict[str, PruningPlan]:
        """Return the uniform plan."""
        return {"uniform": self.uniform()}

    def random(self, generator: torch.Generator) -> np.ndarray:
        """A random action: all filters alike."""
        order = subsets.draw(torch.zeros(self.size), self.choice, generator)
        return subsets.as_mask(order, self.size)

    def sample(self, generator: torch.Generator) -> PruningPlan:
        """A random plan of this sparsity."""
        return self.plan(self.random(generator))

    def uniform(self) -> PruningPlan:
        """The same fraction of every group, its most important filters."""
        best = subsets.best(ranks(self._observation), self.choice)
        return self.plan(subsets.as_mask(best, self.size))

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Filters are chosen in one go: what is chosen is what stays."""
        return np.asarray(action)

    def met(self, keep: np.ndarray) -> bool:
        """Whether the filters chosen are as many as the sparsity asks for."""
        return int(np.sum(keep)) == self.keep

    def cost(self, plan: PruningPlan) -> Cost:
        """Cost of a plan, counted on the graph."""
        return cost(self.graph, plan)

    def used(self, plan: PruningPlan) -> float:
        """Fraction of the filters that stay."""
        return float(self.kept(plan).mean())

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """The network's graph, with a node for every filter and how many of them stay."""
        return self._observation


def filter_choice(
    graph: ComputationalGraph,
    importance: Importance | None,
    budget: Budget,
    min_channels: int = 1,
    min_fraction: float = 0.0,
) -> Choice:
    """What every layer keeps at least, and how many stay in all; refuses what empties a layer."""
    if budget.resource != "sparsity":
        raise UserError(
            f"space filters keeps a number of filters, it cannot meet a budget of "
            f"{budget.resource}; give budget.sparsity and set the others to null"
        )
    if not graph.groups:
        raise UserError("the network has no filters that can be cut (is all of it protected?)")
    keep = round(budget.fraction * graph.num_units)
    choice = choice_of(graph, importance, keep, max(1, min_channels), min_fraction)
    least = int(choice.least.sum())
    if keep < least:
        raise UserError(
            f"budget.sparsity {budget.value} leaves {keep} of {graph.num_units} filters, but "
            f"its {len(graph.groups)} layers or groups of layers need {least} so that none is "
            "emptied; lower the sparsity, min_channels or min_fraction"
        )
    return choice
