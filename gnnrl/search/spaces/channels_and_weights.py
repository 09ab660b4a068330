"""Space `channels_and_weights`: channels of convolutions and densities of dense layers, jointly."""

# G: groups of convolutions   L: dense layers   D: decisions: groups, then layers

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided
from gnnrl.graph.cost_model import AxisCosts, Term
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.channels import DYNAMIC
from gnnrl.search.spaces.base import PlanSpace
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.weights import LEAST_DENSITY, sparsity_of

if TYPE_CHECKING:
    from torch_geometric.data import Data


class ChannelWeightSpace(PlanSpace):
    """Which channels of convolutions are kept, and which share of their weights dense layers keep.

    An action holds a keep ratio in [0, 1] for each group of channels, but those that a dense layer
    makes, which are kept; then a density for each dense layer (`cpfg` of AGMC).  A zero weight
    costs as many flops as another one, so the budget holds twice: channels are scaled onto it, as
    in `ChannelSpace`, and dense layers keep this fraction of the weights that are left to them.

    widths: of all groups, with the budget.  Raises `UserError` where there is no dense layer or no
    other group, for a budget of parameters, and where the budget cannot be met.
    """

    action_kind = "continuous"

    def __init__(self, widths: ChannelSpace) -> None:
        self.graph, self.budget = widths.graph, widths.budget
        graph = self.graph
        if self.budget.resource == "parameters":
            raise UserError(
                "space channels_and_weights holds its budget for channels and for weights: give "
                "budget.flops or budget.latency"
            )
        dense = {name for name, node in graph.layers.items() if node.operation == "linear"}
        self.layers = [name for name in graph.layers if name in dense - set(graph.protected)]
        made = np.array([not dense.isdisjoint(group.layers) for group in graph.groups], dtype=bool)
        if not self.layers or made.all():
            raise UserError(
                "space channels_and_weights prunes convolutions and dense layers, and the network "
                f"has {(~made).sum()} groups of channels and {len(self.layers)} dense layers that "
                "can be pruned: take the space channels or weights"
            )
        self.widths, self._free = widths.holding(made), ~made
        self.widths.refuse_unreachable()
        self.names = [*np.array(widths.names)[~made].tolist(), *self.layers]
        self.size, self.dense = len(self.names), widths.dense
        weights = [graph.parameters[graph.layers[name].parameters[0]] for name in self.layers]
        self._weights = [AxisCosts([Term.of(weight)]) for weight in weights]
        self._nodes = [
            next(i for i, n in enumerate(graph.nodes) if n.layer == name and n.filters)
            for name in self.layers
        ]

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan of entries `[D]`, on budget."""
        return self.decide(action).plan

    def decide(self, action: np.ndarray) -> Decided:
        """Return the plan of entries `[D]`, on budget, with its units."""
        entries = self.numbers(action, "entries")
        return self._with_densities(self.widths.decide(self._ratios(entries)), entries)

    def _with_densities(self, channels: Decided, entries: np.ndarray) -> Decided:
        """Add the densities of the last entries `[L]` to a plan of channels."""
        assert channels.units is not None
        left = self._left(channels.units)
        limit = self.budget.fraction * left.sum()
        sparsity = sparsity_of(self.layers, entries[-len(self.layers) :], left, limit)
        return Decided(PruningPlan(channels.plan.kept, weight_sparsity=sparsity), channels.units)

    def wanted(self, entries: np.ndarray) -> np.ndarray:
        """Return keep ratios and densities `[D]` that an action asks for."""
        ratios = self.widths.wanted(self._ratios(entries))[self._free]
        return np.concatenate([ratios, np.maximum(entries[len(ratios) :], LEAST_DENSITY)])

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return the entries `[D]` after one more step."""
        before = np.ones(self.size) if keep is None else keep
        return np.maximum(before * np.clip(action, 0.0, 1.0), LEAST_DENSITY)

    def met(self, keep: np.ndarray) -> bool:
        """Whether these entries meet the budget, in both ways, without being scaled."""
        density = keep[-len(self.layers) :]
        whole = self._left(np.ones(self.graph.num_units, dtype=bool))
        return self.widths.met(self._ratios(keep)) and bool(
            density @ whole <= self.budget.fraction * whole.sum()
        )

    def uniform(self) -> PruningPlan:
        """Return the control: one ratio and one density."""
        plan = self.widths.uniform_in_blocks()
        channels = Decided(plan, Decided(plan).units_of(self.graph))
        return self._with_densities(channels, np.full(self.size, 0.5)).plan

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the dense cost that a plan takes, of the budget's resource."""
        return self.widths.used(plan)

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph with these ratios and densities `[D]` (None: all is kept)."""
        seen = self.widths.observation(None if keep is None else self._ratios(keep))
        nodes, free = torch.tensor(self._nodes), torch.from_numpy(np.flatnonzero(self._free))
        if keep is not None:
            seen.x = seen.x.clone()
            place = seen.x.shape[1] - len(DYNAMIC) + DYNAMIC.index("keep ratio")
            seen.x[nodes, place] = torch.from_numpy(keep[-len(nodes) :]).float()
        seen.decision_index = torch.cat([seen.decision_index[free], nodes])
        return seen

    def _ratios(self, entries: np.ndarray) -> np.ndarray:
        """Entries of all groups of the graph; those that are kept have ones."""
        ratios = np.ones(len(self._free))
        ratios[self._free] = entries[: -len(self.layers)]
        return ratios

    def _left(self, units: np.ndarray) -> np.ndarray:
        """Weights of the dense layers that are left with these units `[L]`."""
        return np.array([weight.of_units(units) for weight in self._weights], dtype=np.float64)
