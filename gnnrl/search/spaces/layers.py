"""Space `layers`: which layers and blocks are removed (N2N, Ashok et al. 2018)."""

# P: parts that can be removed   O: operations

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.cost_model import AxisCosts
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyCosts, LatencyTable
from gnnrl.graph.removal import parts_of, removable_units
from gnnrl.graph.resources import RESOURCES, costs_of, counted
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.layers import LayerView
from gnnrl.search.spaces.base import PlanSpace

if TYPE_CHECKING:
    from torch_geometric.data import Data


class LayerSpace(PlanSpace):
    """Which parts of a network are removed: true for each one that is.

    A part is a layer, or a block, whose removal leaves a valid network: it reads one tensor and
    gives one of the same shape (`gnnrl.graph.removal`).  So strided layers, those that change the
    width, the first and the last one are protected, as in N2N, and any action is a valid plan.

    budget: of flops, parameters or, with a `table`, latency.  As long as an action's plan is over
    it, one more part is removed: the smallest that suffices, or, where none does, the largest.
    project: False leaves plans over budget as they are, for a reward that punishes them.
    Raises `UserError` where no part can be removed or the budget cannot be met.
    """

    action_kind = "binary"

    def __init__(
        self,
        graph: ComputationalGraph,
        budget: Budget | float = 1.0,
        *,
        project: bool = True,
        table: LatencyTable | None = None,
    ) -> None:
        self.graph = graph
        self.budget = Budget.of(budget, "parameters")
        resource = RESOURCES[self.budget.resource]
        if not resource.is_counted and table is None:
            lacks = " without a latency table" if resource.needs_table else ""
            raise UserError(
                f"space layers cannot meet a budget of {self.budget.resource}{lacks}: give "
                f"{' or '.join(f'budget.{name}' for name in counted())} (1.0: the reward alone "
                "decides)"
            )
        self.parts = parts_of(graph)
        if not self.parts:
            raise UserError(
                "the network has no layer that can be removed: each one changes the shape of what "
                "it reads, is read by several others, or is protected"
            )
        self.names = list(self.parts)
        self.size, self.dense = len(self.names), cost(graph)
        self._inside = {name: frozenset(n.name for n in part) for name, part in self.parts.items()}
        costs = costs_of(self.budget.resource, graph, table)
        assert isinstance(costs, AxisCosts | LatencyCosts)
        self._costs = costs
        self._limit = self.budget.fraction * self._cost_without(())
        self._project = project
        self._check_reachable()
        self._view = LayerView(graph, self.parts)

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan without the parts for which `action` `[P]` is true, and on budget."""
        return PruningPlan(removed_layers=frozenset(self.removed(action)))

    def removed(self, action: np.ndarray) -> list[str]:
        """Return the parts removed, without those inside others: equal subnets are equal plans."""
        removed = self._outermost(self._named(self.numbers(action, "entries")))
        while self._project and self._cost_without(removed) > self._limit:
            removed = self._outermost([*removed, self._next(removed)])
        return removed

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return what is removed after one more step `[P]`."""
        before = np.zeros(self.size, dtype=bool) if keep is None else keep
        return before | np.asarray(action, dtype=bool)

    def met(self, keep: np.ndarray) -> bool:
        """Whether there is a budget below 1, and it is met; keep `[P]`: what is removed."""
        return self.budget.fraction < 1 and self._cost_without(self._named(keep)) <= self._limit

    def random(self, generator: torch.Generator) -> np.ndarray:
        """Return a random action: each part is removed with one chance, which is random itself."""
        share = torch.rand(1, generator=generator, dtype=torch.float64)
        return (torch.rand(self.size, generator=generator, dtype=torch.float64) < share).numpy()

    def uniform(self, share: float = 0.5, phase: float = 0.5) -> PruningPlan:
        """Return the control: this share of the parts with weights removed, evenly over the depth.

        Parts are blocks, and convolution and linear layers in no removable block.  phase: where
        the removed part lies in each stretch of depth, [0, 1).
        """
        units = removable_units(self.graph)
        removed = evenly(units, round(share * len(units)), phase)
        return self.plan(np.array([name in removed for name in self.names]))

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the dense cost that a plan takes, of the budget's resource."""
        return self._cost_without(plan.removed_layers) / self._cost_without(())

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph; `keep` `[P]`: what is removed already."""
        removed = [] if keep is None else self._named(keep)
        return self._view.data({node for name in removed for node in self._inside[name]})

    def _named(self, removed: np.ndarray) -> list[str]:
        return [name for name, out in zip(self.names, removed, strict=True) if out]

    def _outermost(self, names: list[str]) -> list[str]:
        inside = self._inside
        return [n for n in names if not any(inside[n] < inside[other] for other in names)]

    def _cost_without(self, parts: Iterable[str]) -> float:
        """Cost of what is left, of the budget's resource; removal changes no other layer's cost."""
        return self._costs.without(frozenset().union(*(self._inside[name] for name in parts)))

    def _next(self, removed: list[str]) -> str:
        """The part to remove next where the budget asks for more."""
        taken = frozenset().union(*(self._inside[name] for name in removed))
        open_parts = [name for name in self.names if not self._inside[name] <= taken]
        left = {name: self._cost_without([*removed, name]) for name in open_parts}
        enough = [name for name, cost in left.items() if cost <= self._limit]
        return max(enough, key=left.__getitem__) if enough else min(left, key=left.__getitem__)

    def _check_reachable(self) -> None:
        least = self._cost_without(self.names) / self._cost_without(())
        if least > self.budget.fraction:
            raise UserError(
                f"budget.{self.budget.resource} {self.budget.fraction} cannot be met: without all "
                f"{self.size} removable parts {least:.4f} of the dense network remains; raise "
                "the budget"
            )


def evenly(units: Sequence[str], count: int, phase: float = 0.5) -> set[str]:
    """Return so many of the units, evenly over the depth; phase: as in `LayerSpace.uniform`."""
    places = {min(int((i + phase) * len(units) / count), len(units) - 1) for i in range(count)}
    return {units[place] for place in places}
