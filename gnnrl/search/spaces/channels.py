"""Space `channels`: one keep ratio for each channel group, within a budget."""

# G: groups   U: units

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from gnnrl.agents.menu import Menu, menu_of
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided
from gnnrl.graph.budget import Budget, largest
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.group_costs import GroupCosts
from gnnrl.graph.latency import LatencyTable
from gnnrl.graph.unit_mapping import kept_filters, kept_units
from gnnrl.pruning.allocation import allocate, sensitivity_curves
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.channels import View
from gnnrl.search.spaces.base import PlanSpace
from gnnrl.search.spaces.channel_order import ordered

if TYPE_CHECKING:
    from torch_geometric.data import Data

REACH = 4.0
"""How far an action can go from a prior, as a factor."""

USED_UP = 0.995
"""A plan that uses less of the budget is improved by exchanging channels, where possible."""

SMALLEST_RATIO = 1e-3
"""Least keep ratio of an action: with it a group still grows when the budget has room for all."""


class ChannelSpace(PlanSpace):
    """Which channels are kept: a ratio per group, the most important first.

    An action holds a keep ratio in [0, 1] for each group.  Only its proportions matter: it is
    scaled by the one factor that uses up the budget, then filled up with whole channels.

    importance: of the channels, it orders each group.  min_channels: kept of each group at least.
    multiple: widths are rounded to multiples of it (a group smaller than that is kept whole).
    table: how long operations take, for a budget of latency.
    curves: what removing a group's channels costs (`pruning.compensation.reconstruction`), for the
    observation.  prior: the keep ratios of the action 0.5; an action then scales them, by at most
    `REACH` up or down: an array `[G]`, a number for each group by name, or "reconstruction": the
    allocation by `curves`.
    Raises `UserError` where no channel can be pruned or the budget cannot be met.
    """

    action_kind = "continuous"
    refuses: ClassVar[bool] = True
    """Whether a budget that cannot be met is refused."""

    def __init__(
        self,
        graph: ComputationalGraph,
        importance: Importance,
        budget: Budget | float = 0.5,
        *,
        min_channels: int = 1,
        multiple: int = 1,
        table: LatencyTable | None = None,
        curves: Mapping[str, Tensor] | None = None,
        prior: np.ndarray | Mapping[str, float] | str | None = None,
        view: str = "hierarchical",
    ) -> None:
        if not graph.groups:
            raise UserError(
                "the network has no channels that can be pruned (is all of it protected?)"
            )
        self.graph, self.budget = graph, Budget.of(budget)
        self.names = [group.name for group in graph.groups]
        self.size = len(self.names)
        self._sizes = np.array([group.size for group in graph.groups])
        self.order, core = ordered(graph, importance)
        self._rank = np.argsort(self.order)  # place of each unit, best of its group first
        self._start = np.repeat(np.cumsum(self._sizes) - self._sizes, self._sizes)
        self.multiple, self.min_channels = max(1, multiple), min_channels
        self.floor = self._grid(np.clip(max(1, min_channels), core, self._sizes), up=True)
        self.costs = GroupCosts(graph, self.order, self.budget.costs(graph, table))
        self.dense = cost(graph)
        self.curves, self._asked, self.table = curves or {}, prior, table
        self._use_up = True
        self.importance, self._hierarchical = importance, view == "hierarchical"
        self._aim()

    def _aim(self) -> None:
        """Compute what depends on the budget."""
        self.limit = self.costs.cost(self._sizes) * self.budget.fraction
        if self.refuses:
            self.refuse_unreachable()
        self._ratios = self._given(self._asked)
        self._prior = None if self._ratios is None else np.clip(self._ratios, SMALLEST_RATIO, 1.0)

    def at(self, fraction: float) -> ChannelSpace:
        """Return the same space with another fraction of the budget's resource."""
        twin = copy.copy(self)
        twin.__dict__.pop("view", None)  # it was computed for the other budget
        twin.budget = Budget.of(fraction, self.budget.resource)
        twin._aim()
        return twin

    @property
    def allocates(self) -> bool:
        """Whether the prior is the allocation by the measured curves."""
        return isinstance(self._asked, str)

    def around(self, ratios: np.ndarray) -> ChannelSpace:
        """Return the same space with keep ratios `[G]` as its prior."""
        twin = copy.copy(self)
        twin.__dict__.pop("view", None)
        twin._ratios, twin._prior = ratios, np.clip(ratios, SMALLEST_RATIO, 1.0)
        return twin

    def within(self) -> ChannelSpace:
        """Return the same space, but an action that is within the budget is left as it is.

        For a reward of small plans: the budget is an upper limit only.
        """
        twin = copy.copy(self)
        twin._use_up = False
        return twin

    def refuse_unreachable(self) -> None:
        """Raise `UserError` where the budget cannot be met."""
        least = self._least()
        if least > self.budget.fraction:
            raise UserError(
                f"a budget of {self.budget} cannot be met: with "
                f"{int(self.floor.min())} channel(s) left in every group {least:.4f} of the dense "
                "network remains; raise the budget, or lower min_channels or multiple"
            )

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan of keep ratios `[G]`, on budget."""
        return self.decide(action).plan

    def decide(self, action: np.ndarray) -> Decided:
        """Return the plan of keep ratios `[G]`, on budget, with its units."""
        return self._decided(self.counts(action))

    def plan_of(self, counts: np.ndarray) -> PruningPlan:
        """Return the plan that keeps the best `counts[g]` channels of each group `[G]`."""
        return self._decided(counts).plan

    @property
    def prior(self) -> np.ndarray | None:
        """Keep ratios `[G]` of the action 0.5; None: there is no prior."""
        return self._prior

    def counts_of_all(self) -> np.ndarray:
        """Return the channels of each group `[G]`."""
        return self._sizes.copy()

    def saved_by_group(self) -> np.ndarray:
        """Return what removing all channels of each group alone saves `[G]`."""
        whole = self.costs.cost(self._sizes)
        alone = np.tile(self._sizes, (self.size, 1))
        np.fill_diagonal(alone, 0)
        return np.array([whole - self.costs.cost(counts) for counts in alone])

    def _decided(self, counts: np.ndarray) -> Decided:
        keep = self._rank - self._start < np.repeat(counts, self._sizes)
        return Decided(PruningPlan(kept_filters(self.graph, keep)), keep)

    def counts(self, action: np.ndarray) -> np.ndarray:
        """Return the channels to keep of each group `[G]`: the action scaled onto the budget."""
        ratios = self.wanted(self.numbers(action, "keep ratios"))
        if not self._use_up and self.met(np.minimum(ratios, 1.0)):
            return self._bounded(ratios * self._sizes)
        if self.costs.cost(self._sizes) <= self.limit:
            return self._sizes.copy()
        wanted = ratios * self._sizes

        def fits(factor: float) -> bool:
            return self.costs.cost(self._bounded(factor * wanted)) <= self.limit

        low, high = largest(fits, 0.0, float(1.0 / ratios.min()), steps=16)
        counts = self._fill(self._bounded(low * wanted), high * wanted)
        while self.costs.cost(counts) < USED_UP * self.limit:
            better = self._exchange(counts, high * wanted)
            if better is None:
                break
            counts = better
        return counts

    def wanted(self, entries: np.ndarray) -> np.ndarray:
        """Return the keep ratios `[G]` that entries ask for; with a prior they depart from it."""
        ratios = np.clip(entries, SMALLEST_RATIO, 1.0)
        if self._prior is None:
            return ratios
        return np.maximum(self._prior * REACH ** (2.0 * ratios - 1.0), SMALLEST_RATIO)

    def holding(self, whole: np.ndarray) -> ChannelSpace:
        """Return the same space in which these groups, bool `[G]`, keep all their channels."""
        twin = copy.copy(self)
        twin.__dict__.pop("view", None)
        twin.floor = np.where(whole, self._sizes, self.floor)
        twin._aim()
        return twin

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return the keep ratios `[G]` after one more step."""
        before = np.ones(self.size) if keep is None else keep
        return np.maximum(before * np.clip(action, 0.0, 1.0), self.floor / self._sizes)

    def met(self, keep: np.ndarray) -> bool:
        """Whether these keep ratios meet the budget without being scaled."""
        return self.costs.cost(self._bounded(keep * self._sizes)) <= self.limit

    def uniform(self) -> PruningPlan:
        """Return the control that every search has to beat: the same ratio everywhere."""
        return self.plan(np.full(self.size, 0.5))

    def uniform_in_blocks(self) -> PruningPlan:
        """Return the plan of one ratio for all groups but those that an addition joins.

        These keep all channels, as is usual in uniform pruning of a residual network.  Where the
        budget cannot be met like that, the ratio is the same everywhere.
        """
        twin = copy.copy(self)
        twin._prior = None
        twin.floor = np.where(joined(self.graph), self._sizes, self.floor)
        if self.costs.cost(twin.floor) > self.limit:
            twin.floor = self.floor
        return twin.uniform()

    def controls(self) -> dict[str, PruningPlan]:
        """Return uniform in blocks, and the allocation where a calibration pass was made.

        Where plans need not use up the budget, both of every twentieth of the resource within it.
        """
        if not self._use_up:
            shares = [n / 20 for n in range(1, 21) if self._least() < n / 20 < self.budget.fraction]
            twins = {f" {share:g}": self.at(share) for share in [*shares, self.budget.fraction]}
            for twin in twins.values():
                twin._use_up = True
            each = {end: twin.controls() for end, twin in twins.items()}
            return {f"{name}{end}": p for end, c in each.items() for name, p in c.items()}
        found = {"uniform": self.uniform_in_blocks()}
        if self.curves:
            found["allocation"] = self.plan(self.action_of(self.allocation(self.curves)))
        return found

    def probes(self, keep_ratio: float) -> list[PruningPlan]:
        """Return the plan of the dense network, then of each group alone pruned to a keep ratio.

        These are over budget.  A group that cannot be pruned so far is pruned as far as allowed.
        """
        alone = np.tile(self._sizes, (self.size, 1))
        np.fill_diagonal(alone, self._bounded(keep_ratio * self._sizes))
        return [self.plan_of(counts) for counts in (self._sizes, *alone)]

    def informed(self, keep_ratio: float, losses: Sequence[float]) -> np.ndarray:
        """Return the action of least loss, estimated from the losses of `probes(keep_ratio)`."""
        left = self._bounded(keep_ratio * self._sizes)
        curves = sensitivity_curves(self.names, self._sizes, left, losses)
        return self.action_of(self.allocation(curves))

    def allocation(
        self, curves: Mapping[str, Tensor], cost: Callable[[np.ndarray], float] | None = None
    ) -> np.ndarray:
        """Return keep ratios `[G]` that meet the budget with a small residual, by `curves`.

        cost: of channel counts `[G]`, where it is not that of the whole graph.
        """
        sizes = dict(zip(self.names, self._sizes.tolist(), strict=True))
        price = cost or self.costs.cost
        return allocate(curves, sizes, self.floor, price, self.limit, self.multiple)

    def menu(self) -> Menu | None:
        """Return what every width of each group loses and costs; None where it was not measured."""
        if not self.curves:
            return None
        curves = [self.curves.get(name) for name in self.names]
        return menu_of(curves, self._sizes, self.floor, self.costs.cost, self.limit, self.action_of)

    def action_of(self, ratios: np.ndarray) -> np.ndarray:
        """Return the action of keep ratios `[G]`, as far as the prior lets it reach."""
        if self._prior is None:
            return np.clip(ratios, 0.0, 1.0)
        departure = np.log(np.maximum(ratios, SMALLEST_RATIO) / self._prior) / np.log(REACH)
        return np.clip((departure + 1.0) / 2.0, 0.0, 1.0)

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the dense cost that a plan takes, of the budget's resource."""
        return self.costs.cost(self.widths(plan)) / self.costs.cost(self._sizes)

    def widths(self, plan: PruningPlan) -> np.ndarray:
        """Return how many channels a plan keeps of each group `[G]`."""
        keep = kept_units(self.graph, plan.kept)
        return np.add.reduceat(keep, np.cumsum(self._sizes) - self._sizes, dtype=np.int64)

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph with these keep ratios `[G]` (None: all kept)."""
        counts = self._sizes if keep is None else self._bounded(keep * self._sizes)
        slack = 1.0 - self.limit / max(self.costs.cost(counts), 1e-12)
        return self.view.data(counts, self.order, slack)

    @cached_property
    def view(self) -> View:
        """The observations of the network."""
        return View(
            self.graph, self.importance, self._hierarchical, curves=self.curves, prior=self._ratios
        )

    def _given(self, prior: np.ndarray | Mapping[str, float] | str | None) -> np.ndarray | None:
        """Keep ratios `[G]` of a prior, in whichever form it is given."""
        if isinstance(prior, str):
            return self.allocation(self.curves)
        if isinstance(prior, Mapping):
            return np.array([prior[name] for name in self.names])
        return prior

    def _bounded(self, wanted: np.ndarray) -> np.ndarray:
        """Whole channels, at least the floor `[G]`."""
        whole = self._grid(wanted) if self.multiple > 1 else (wanted + 1e-9).astype(np.int64)
        return np.minimum(np.maximum(whole, self.floor), self._sizes)

    def _grid(self, counts: np.ndarray, up: bool = False) -> np.ndarray:
        """Multiples; the whole group is always allowed."""
        m = self.multiple
        rounded = (np.ceil(counts / m) if up else np.floor(counts / m + 1e-9)).astype(np.int64) * m
        return np.where(counts >= self._sizes, self._sizes, np.minimum(rounded, self._sizes))

    def _fill(self, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Add channels where they are missed most, as long as one fits."""
        open_groups = counts < self._sizes
        while open_groups.any():
            missing = np.where(open_groups, (wanted - counts) / self.multiple, -np.inf)
            group = int(missing.argmax())
            more = counts.copy()
            more[group] = min(counts[group] + self.multiple, self._sizes[group])
            if self.costs.cost(more) <= self.limit:
                counts = more
                open_groups[group] = counts[group] < self._sizes[group]
            else:
                open_groups[group] = False
        return counts

    def _exchange(self, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
        """One channel more of a costly group, in exchange for channels of the fullest ones."""
        best, most = None, self.costs.cost(counts)
        for more in np.flatnonzero(counts < self._sizes):
            tried = counts.copy()
            tried[more] = min(counts[more] + self.multiple, self._sizes[more])
            while self.costs.cost(tried) > self.limit:
                fullness = np.where(tried > self.floor, tried / self._sizes, -1.0)
                fullness[more] = -1.0
                group = int(fullness.argmax())
                if fullness[group] < 0:
                    break
                tried[group] = max(tried[group] - self.multiple, self.floor[group])
            else:
                tried = self._fill(tried, wanted)
                if self.costs.cost(tried) > most:
                    best, most = tried, self.costs.cost(tried)
        return best

    def _least(self) -> float:
        """The fraction of the dense cost that remains of the fewest channels."""
        return self.costs.cost(self.floor) / self.costs.cost(self._sizes)


class Widths(ChannelSpace):
    """What other spaces prune channels with: its budget may be out of reach of channels alone."""

    refuses = False


def joined(graph: ComputationalGraph) -> np.ndarray:
    """Return which groups an addition of two values joins, bool `[G]`: those of shortcuts."""
    units = [
        node.channels.units
        for node in graph.nodes
        if node.operation == "add" and node.channels and len(set(node.inputs)) > 1
    ]
    met = {unit for found in units for unit in found.tolist()}
    return np.array([not met.isdisjoint(range(g.start, g.start + g.size)) for g in graph.groups])
