"""The channels that are left when parts of a network are removed, as a space of their own."""

# G: groups of the whole network   R: groups of what is left   U: units

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from gnnrl.evaluation.base import Decided
from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import absent_layers, without
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.spaces.channels import ChannelSpace, Widths


class Reduced:
    """A `ChannelSpace` of the graph without parts, which takes the keep ratios of the whole graph.

    A group that is left may consist of several groups of the whole graph (the channels before and
    after a removed layer are the same): it takes the mean of their ratios and scores.
    """

    def __init__(self, widths: ChannelSpace, removed: frozenset[str]) -> None:
        self.widths, self.removed_layers = widths, removed
        self.graph = without(widths.graph, removed)
        pairs = _pairs(widths.graph, self.graph)
        groups = widths.graph.groups
        scores = np.concatenate([widths.importance[g.name].double().numpy() for g in groups])
        self._mean = _means(owners(self.graph)[pairs[:, 0]], owners(widths.graph)[pairs[:, 1]],
                            len(self.graph.groups), len(groups))  # fmt: skip
        count = np.bincount(pairs[:, 0], minlength=self.graph.num_units)
        total = np.bincount(pairs[:, 0], scores[pairs[:, 1]], minlength=self.graph.num_units)
        mine = torch.from_numpy(total / np.maximum(count, 1))
        own = Importance({g.name: mine[g.start : g.start + g.size] for g in self.graph.groups})
        prior = widths.prior
        self.space = Widths(
            self.graph, own, Budget(**{widths.budget.resource: 1.0}), table=widths.table,
            prior=None if prior is None else self._mean @ prior,
            min_channels=widths.min_channels, multiple=widths.multiple,
        )  # fmt: skip
        self.space.limit = widths.limit

    @cached_property
    def whole(self) -> float:
        """Cost with all channels of what is left."""
        return self.space.costs.cost(self.space.counts_of_all())

    @cached_property
    def least(self) -> float:
        """Cost with the fewest channels."""
        return self.space.costs.cost(self.space.floor)

    @property
    def fits(self) -> bool:
        """Whether all channels fit the budget."""
        return self.whole <= self.space.limit

    @property
    def reachable(self) -> bool:
        """Whether some widths meet the budget."""
        return self.least <= self.space.limit

    def decide(self, ratios: np.ndarray) -> Decided:
        """Return the plan of keep ratios `[G]`, on budget, with its units `[U]` of the whole."""
        return self._decided(self.space.plan(self._mean @ ratios))

    def uniform(self) -> PruningPlan:
        """Return the plan of one keep ratio."""
        return self._decided(self.space.uniform_in_blocks()).plan

    def met(self, ratios: np.ndarray) -> bool:
        """Whether keep ratios `[G]` meet the budget without being scaled."""
        return self.space.met(self._mean @ ratios)

    def allocation(self) -> np.ndarray:
        """Return keep ratios `[G]` that meet the budget with a small residual, 1 where a group is
        gone."""
        return self.widths.allocation(self.widths.curves, self._cost)

    def cost_of(self, plan: PruningPlan) -> float:
        """Return the cost of a plan that removes these parts."""
        return self.space.used(plan) * self.whole

    def saved_by_group(self) -> np.ndarray:
        """Return what removing each group of the whole graph saves here `[G]`, nothing if it is
        gone."""
        return self.space.saved_by_group() @ self._mean

    def _cost(self, counts: np.ndarray) -> float:
        """Cost of channel counts of the whole graph's groups `[G]`."""
        return self.space.costs.cost(np.round(self._mean @ counts).astype(np.int64))

    def _decided(self, plan: PruningPlan) -> Decided:
        full = PruningPlan(plan.kept, self.removed_layers)
        absent = absent_layers(self.widths.graph, self.removed_layers)
        return Decided(full, kept_units(self.widths.graph, full.kept, absent))


def owners(graph: ComputationalGraph) -> np.ndarray:
    """Return the group of each unit `[U]`."""
    return np.repeat(np.arange(len(graph.groups)), [group.size for group in graph.groups])


def _pairs(whole: ComputationalGraph, left: ComputationalGraph) -> np.ndarray:
    """Which units of the whole graph each unit that is left consists of: pairs `[.., 2]`."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    for name, node in left.layers.items():
        both = np.stack([node.filter_units, whole.layers[name].filter_units], axis=1)
        found.append(both[(both >= 0).all(1)])
    return np.unique(np.concatenate(found), axis=0)


def _means(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> np.ndarray:
    """A matrix `[R, G]` that takes means over the groups that a group consists of."""
    table = np.zeros((height, width))
    table[rows, columns] = 1.0
    return table / np.maximum(table.sum(1, keepdims=True), 1.0)
