"""Space `layers`: which layers and blocks are removed, and which kernels become smaller (N2N,
Ashok et al. 2018)."""

# D: decisions: parts that can be removed, then sizes of kernels

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.cost_model import AxisCosts
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.kernels import shrunk, smaller_kernels
from gnnrl.graph.latency import LatencyCosts, LatencyTable
from gnnrl.graph.removal import parts_of, removable_units
from gnnrl.graph.resources import RESOURCES, costs_of, counted
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.layers import LayerView
from gnnrl.search.spaces.base import PlanSpace

if TYPE_CHECKING:
    from torch_geometric.data import Data


DETAIL = -3.0
"""Prior of a decision that is no whole unit, as a logit: a twentieth of the odds."""


class LayerSpace(PlanSpace):
    """Which parts of a network are removed, and which kernels are made smaller: true for each one.

    A part is a layer, or a block, whose removal leaves a valid network: it reads one tensor and
    gives one of the same shape (`gnnrl.graph.removal`).  So strided layers, those that change the
    width, the first and the last one are protected, as in N2N, and any action is a valid plan.
    With `kernels`, there is a decision for each size that the kernel of a convolution can have
    (`gnnrl.graph.kernels`); the smallest one that is chosen counts.

    budget: of flops, parameters or, with a `table`, latency.  As long as an action's plan is over
    it, one more decision is made: the one that saves least of those that suffice, or, where none
    does, most.
    project: False leaves plans over budget as they are, for a reward that punishes them.
    prior: "depth" lets a policy start near removal by depth: from whole units (`removable_units`,
    what `uniform` removes), while layers within them and kernels are seldom changed at first.
    Raises `UserError` where nothing can be decided or the budget cannot be met.
    """

    action_kind = "binary"

    def __init__(
        self,
        graph: ComputationalGraph,
        budget: Budget | float = 1.0,
        *,
        project: bool = True,
        table: LatencyTable | None = None,
        kernels: bool = False,
        prior: str | None = None,
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
        if kernels and not resource.is_counted:
            raise UserError(
                f"search.kernels makes kernels smaller, whose {self.budget.resource} was not "
                f"measured: give {' or '.join(f'budget.{name}' for name in counted())}"
            )
        sizes = smaller_kernels(graph) if kernels else {}
        self.sizes = {f"{layer} {n}x": (layer, n) for layer, fits in sizes.items() for n in fits}
        if not self.parts and not self.sizes:
            raise UserError(
                "the network has no layer that can be removed: each one changes the shape of what "
                "it reads, is read by several others, or is protected"
            )
        self.names = [*self.parts, *self.sizes]
        self.size, self.dense = len(self.names), cost(graph)
        self._inside = {name: frozenset(n.name for n in part) for name, part in self.parts.items()}
        self._costs = self._costs_of(graph, table)
        self._with = {
            name: self._costs_of(shrunk(graph, dict([small])), table)
            for name, small in self.sizes.items()
        }
        self._limit = self.budget.fraction * self._cost(())
        self._project = project
        self._check_reachable()
        self._view = LayerView(graph, self.parts, list(self.sizes.values()))
        self._prior: Tensor | None = None
        if prior is not None:
            units = set(removable_units(graph))
            self._prior = torch.tensor([0.0 if n in units else DETAIL for n in self.names])

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan of what is decided where `action` `[D]` is true, and on budget.

        Parts inside others, and kernels inside parts, are not named: equal subnets are equal plans.
        """
        chosen = self._named(self.numbers(action, "entries"))
        while self._project and self._cost(chosen) > self._limit:
            chosen = [*chosen, self._next(chosen)]
        removed, small = self._outermost(self._parts(chosen)), self._smallest(chosen).values()
        return PruningPlan(
            removed_layers=frozenset(removed), kernels=dict(self.sizes[name] for name in small)
        )

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return what is decided after one more step `[D]`."""
        before = np.zeros(self.size, dtype=bool) if keep is None else keep
        return before | np.asarray(action, dtype=bool)

    def met(self, keep: np.ndarray) -> bool:
        """Whether there is a budget below 1, and it is met; keep `[D]`: what is decided."""
        return self.budget.fraction < 1 and self._cost(self._named(keep)) <= self._limit

    def random(self, generator: torch.Generator) -> np.ndarray:
        """Return a random action: each entry is true with one chance, which is random itself."""
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

    def controls(self) -> dict[str, PruningPlan]:
        """Return the parts evenly over the depth; all kernels as small as can be, where decided."""
        small = np.array([name in self.sizes for name in self.names])
        return super().controls() | ({"small kernels": self.plan(small)} if self.sizes else {})

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the dense cost that a plan takes, of the budget's resource."""
        small = [name for name, size in self.sizes.items() if size in plan.kernels.items()]
        return self._cost([*plan.removed_layers, *small]) / self._cost(())

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph; `keep` `[D]`: what is decided already."""
        chosen = [] if keep is None else self._named(keep)
        seen = self._view.data(self._gone(chosen), [name in chosen for name in self.sizes])
        if self._prior is not None:
            seen.prior = self._prior
        return seen

    def _costs_of(
        self, graph: ComputationalGraph, table: LatencyTable | None
    ) -> AxisCosts | LatencyCosts:
        costs = costs_of(self.budget.resource, graph, table)
        assert isinstance(costs, AxisCosts | LatencyCosts)
        return costs

    def _named(self, chosen: np.ndarray) -> list[str]:
        return [name for name, true in zip(self.names, chosen, strict=True) if true]

    def _parts(self, chosen: Iterable[str]) -> list[str]:
        return [name for name in chosen if name not in self.sizes]

    def _gone(self, chosen: Iterable[str]) -> frozenset[str]:
        """The operations that are removed."""
        return frozenset().union(*(self._inside[name] for name in self._parts(chosen)))

    def _smallest(self, chosen: Iterable[str]) -> dict[str, str]:
        """By layer, the decision that counts of those on its kernel; sizes are in falling order."""
        gone, chosen = self._gone(chosen), set(chosen)
        return {
            layer: name
            for name, (layer, _) in self.sizes.items()
            if name in chosen and self.graph.layers[layer].name not in gone
        }

    def _outermost(self, names: list[str]) -> list[str]:
        inside = self._inside
        return [n for n in names if not any(inside[n] < inside[other] for other in names)]

    def _cost(self, chosen: Iterable[str]) -> float:
        """Cost of what is left, of the budget's resource; a decision changes no other layer's."""
        chosen = list(chosen)
        gone = self._gone(chosen)
        whole = self._costs.without(gone)
        small = self._smallest(chosen).values()
        return whole - sum(whole - self._with[name].without(gone) for name in small)

    def _next(self, chosen: list[str]) -> str:
        """The decision to make next where the budget asks for more."""
        now, gone = self._cost(chosen), self._gone(chosen)
        open_names = [n for n in self.parts if not self._inside[n] <= gone] + list(self.sizes)
        left = {name: self._cost([*chosen, name]) for name in open_names}
        left = {name: cost for name, cost in left.items() if name in self.parts or cost < now}
        enough = [name for name, cost in left.items() if cost <= self._limit]
        return max(enough, key=left.__getitem__) if enough else min(left, key=left.__getitem__)

    def _check_reachable(self) -> None:
        least = self._cost(self.names) / self._cost(())
        if least > self.budget.fraction:
            without = f"without all {len(self.parts)} removable parts" if self.parts else ""
            small = "with the smallest kernels" if self.sizes else ""
            raise UserError(
                f"budget.{self.budget.resource} {self.budget.fraction} cannot be met: "
                f"{' and '.join(filter(None, (without, small)))} {least:.4f} of the dense network "
                "remains; raise the budget"
            )


def evenly(units: Sequence[str], count: int, phase: float = 0.5) -> set[str]:
    """Return so many of the units, evenly over the depth; phase: as in `LayerSpace.uniform`."""
    places = {min(int((i + phase) * len(units) / count), len(units) - 1) for i in range(count)}
    return {units[place] for place in places}
