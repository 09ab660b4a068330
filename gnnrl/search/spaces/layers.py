"""Space `layers`: which layers and blocks go (N2N, Ashok et al. 2018)."""

# P: parts that can go   O: operations

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.operations import operation_of
from gnnrl.graph.removal import members, removable
from gnnrl.graph.resources import RESOURCES, costs_of, counted
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.layers import LayerView
from gnnrl.search.spaces.action import numbers

if TYPE_CHECKING:
    from torch_geometric.data import Data


class LayerSpace:
    """Which parts of a network go: true for each one that does.

    A part is a layer, or a block, whose removal leaves a valid network: it reads one tensor and
    gives one of the same shape (`gnnrl.graph.removal`).  So strided layers, those that change the
    width, the first and the last one are protected, as in N2N, and any action is a valid plan.

    budget: what may be left, of flops or parameters.  What an action leaves beyond it goes too: the
    smallest part that suffices, or, as long as none does, the largest.
    project: False leaves plans over budget as they are, for a reward that punishes them.
    """

    action_kind = "binary"

    def __init__(
        self, graph: ComputationalGraph, budget: Budget | float = 1.0, *, project: bool = True
    ) -> None:
        self.graph = graph
        self.budget = Budget.of(budget, "parameters")
        if not RESOURCES[self.budget.resource].is_counted:
            raise UserError(
                f"space layers cannot meet a budget of {self.budget.resource}: give "
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
        self._costs = costs_of(self.budget.resource, graph)
        self._limit = self.budget.fraction * self._cost_without(())
        self._project = project
        self._check_reachable()
        self._view = LayerView(graph, self.parts)

    def plan(self, action: np.ndarray) -> PruningPlan:
        """The plan without the parts for which `action` `[P]` is true, and on budget."""
        return PruningPlan(removed_layers=frozenset(self.removed(action)))

    def removed(self, action: np.ndarray) -> list[str]:
        """Parts that go, those inside of others left out, so that equal subnets are equal plans."""
        chosen = numbers(action, self.size, "entries")
        gone = self._outermost([n for n, goes in zip(self.names, chosen, strict=True) if goes])
        while self._project and self._cost_without(gone) > self._limit:
            gone = self._outermost([*gone, self._next(gone)])
        return gone

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """What is gone after more goes `[P]`."""
        before = np.zeros(self.size, dtype=bool) if keep is None else keep
        return before | np.asarray(action, dtype=bool)

    def met(self, keep: np.ndarray) -> bool:
        """Whether what is left is on a budget that asks for anything."""
        gone = [n for n, goes in zip(self.names, keep, strict=True) if goes]
        return self.budget.fraction < 1 and self._cost_without(gone) <= self._limit

    def random(self, generator: torch.Generator) -> np.ndarray:
        """A random action: of parts that each go with a chance which is random itself."""
        share = torch.rand(1, generator=generator, dtype=torch.float64)
        return (torch.rand(self.size, generator=generator, dtype=torch.float64) < share).numpy()

    def sample(self, generator: torch.Generator) -> PruningPlan:
        """A random plan on budget."""
        return self.plan(self.random(generator))

    def uniform(self, share: float = 0.5, phase: float = 0.5) -> PruningPlan:
        """The baseline: of what holds the weights, this share goes, evenly over the depth.

        Of blocks, and of convolution and linear layers in no block that could go.  phase: where in
        each stretch of depth the part lies that goes, [0, 1).
        """
        weighty = [n for n in self.names if any(node.positions for node in self.parts[n])]
        units = self._outermost(weighty)
        count = round(share * len(units))
        places = {min(int((i + phase) * len(units) / count), len(units) - 1) for i in range(count)}
        gone = {units[place] for place in places}
        return self.plan(np.array([name in gone for name in self.names]))

    def cost(self, plan: PruningPlan) -> Cost:
        """Cost of a plan, counted on the graph."""
        return cost(self.graph, plan)

    def used(self, plan: PruningPlan) -> float:
        """Fraction of the dense cost that a plan takes, of the budget's resource."""
        return self._cost_without(plan.removed_layers) / self._cost_without(())

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """The network's graph; `keep` `[P]`: what is gone already."""
        gone = [] if keep is None else [n for n, goes in zip(self.names, keep, strict=True) if goes]
        return self._view.data({node for name in gone for node in self._inside[name]})

    def _outermost(self, names: list[str]) -> list[str]:
        inside = self._inside
        return [n for n in names if not any(inside[n] < inside[other] for other in names)]

    def _cost_without(self, parts: Iterable[str]) -> int:
        """Cost of what is left, of the budget's resource; removal changes no other layer's cost."""
        return self._costs.without(frozenset().union(*(self._inside[name] for name in parts)))

    def _next(self, gone: list[str]) -> str:
        """The part that goes next where the budget asks for more."""
        taken = frozenset().union(*(self._inside[name] for name in gone))
        open_parts = [name for name in self.names if not self._inside[name] <= taken]
        left = {name: self._cost_without([*gone, name]) for name in open_parts}
        enough = [name for name, cost in left.items() if cost <= self._limit]
        return max(enough, key=left.__getitem__) if enough else min(left, key=left.__getitem__)

    def _check_reachable(self) -> None:
        least = self._cost_without(self.names) / self._cost_without(())
        if least > self.budget.fraction:
            raise UserError(
                f"budget.{self.budget.resource} {self.budget.fraction} cannot be met: without all "
                f"{self.size} parts that can go {least:.4f} of the dense network remains; raise "
                "the budget"
            )


def parts_of(graph: ComputationalGraph) -> dict[str, tuple[Node, ...]]:
    """Parts that are decided, with their operations, outer before inner.

    Layers, and blocks that are more than the layers inside them which can go one by one.
    """
    every = members(graph)
    found: dict[str, tuple[Node, ...]] = {}
    sets: dict[frozenset[str], str] = {}
    for name in reversed(removable(graph)):  # inner before outer
        working = frozenset(n.name for n in every[name] if n.operation != "identity")
        below = frozenset().union(*(inner for inner in sets if inner < working))
        alone = len(every[name]) == 1 and not operation_of(every[name][0]).is_layer
        if working and not alone and working != below and working not in sets:
            sets[working] = name
            found[name] = every[name]
    return dict(reversed(found.items()))
