"""Space `joint`: the channels of every group, and whole layers and blocks, in one plan."""

# G: groups   P: parts   D: decisions: groups, then parts   U: units

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.agents.knapsack import solve
from gnnrl.agents.menu import Menu
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided
from gnnrl.graph.removal import members, removable_units
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.observations.joint import JointView
from gnnrl.search.spaces.base import PlanSpace
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.layers import evenly
from gnnrl.search.spaces.reduced import Reduced

if TYPE_CHECKING:
    from torch_geometric.data import Data

REMOVED_BELOW = 0.25
"""A part is removed where its entry of an action is less."""

REMEMBERED = 512
"""Sets of removed parts whose spaces of channels are kept."""


class JointSpace(PlanSpace):
    """Which channels are kept, as in `ChannelSpace`, and which parts, as in `LayerSpace`.

    An action holds an entry in [0, 1] for each group, then for each part: a block, or a layer with
    weights in no such block, whose removal leaves a valid network.  Parts with an entry below
    `REMOVED_BELOW` are removed; the channels of all others are scaled onto the budget.  Where the
    widths alone cannot meet it, the parts of the lowest entries are removed, too; where all
    channels would fit, those of the highest entries come back.  Without removable parts it is the
    space of channels.

    Where residuals were measured and are the prior of the widths, the action 0.5 is the plan of
    least residual: a part that this plan removes is kept where its entry is at least
    `REMOVED_BELOW` + 0.5, and of equal entries the part that loses least is removed first.

    widths: of all groups, with the budget, which may be out of reach of channels alone.
    Raises `UserError` where the budget cannot be met.
    """

    action_kind = "continuous"

    def __init__(self, widths: ChannelSpace) -> None:
        self.widths, self.graph, self.budget = widths, widths.graph, widths.budget
        self.parts = removable_units(self.graph)
        self.dense, self.names = widths.dense, [*widths.names, *self.parts]
        self.size = len(self.names)
        self._whole = widths.costs.cost(widths.counts_of_all())
        self._left: dict[frozenset[str], Reduced] = {}
        inside = members(self.graph)
        self._view = JointView(widths.view, [inside[name] for name in self.parts])
        self._check_reachable()
        self._losses, self._prior = np.zeros(len(self.parts)), np.zeros(len(self.parts), dtype=bool)
        if widths.allocates:
            self._start()

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan of entries `[D]`, on budget."""
        return self.decide(action).plan

    def decide(self, action: np.ndarray) -> Decided:
        """Return the plan of entries `[D]`, on budget, with its units."""
        ratios, entries = np.split(self.numbers(action, "entries"), [len(self.widths.names)])
        return self.left(self.removed(entries)).decide(ratios)

    def wanted(self, entries: np.ndarray) -> np.ndarray:
        """Return keep ratios of groups and entries of parts `[D]` that an action asks for."""
        count = len(self.widths.names)
        return np.concatenate([self.widths.wanted(entries[:count]), self._from(entries[count:])])

    def removed(self, entries: np.ndarray) -> frozenset[str]:
        """Return the parts that entries `[P]` remove, and those that the budget does."""
        asked = self._from(entries)
        order = [self.parts[i] for i in np.lexsort((self._losses, asked))]
        count = int((asked < REMOVED_BELOW).sum())
        while not self.left(order[:count]).reachable:
            count += 1
        while count and self.left(order[: count - 1]).fits:
            count -= 1
        return frozenset(order[:count])

    def left(self, removed: Iterable[str]) -> Reduced:
        """Return the space of the channels that are left without these parts."""
        gone = frozenset(removed)
        if gone not in self._left:
            if len(self._left) >= REMEMBERED:
                self._left.clear()
            self._left[gone] = Reduced(self.widths, gone)
        return self._left[gone]

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return the entries `[D]` after one more step."""
        count, entries = len(self.widths.names), np.clip(action, 0.0, 1.0)
        before = np.ones(self.size) if keep is None else keep
        ratios = self.widths.step(before[:count], entries[:count])
        return np.concatenate([ratios, np.minimum(before[count:], entries[count:])])

    def met(self, keep: np.ndarray) -> bool:
        """Whether these entries meet the budget without being scaled."""
        ratios, entries = np.split(keep, [len(self.widths.names)])
        gone = [part for part, entry in zip(self.parts, entries, strict=True) if self._out(entry)]
        return self.left(gone).met(ratios)

    def uniform(self) -> PruningPlan:
        """Return the control of one depth and one width: both take a like share of the budget."""
        share = math.sqrt(self.budget.fraction)
        for count in range(len(self.parts) + 1):
            left = self.left(evenly(self.parts, count))
            if left.whole <= share * self._whole and left.reachable:
                break
        return left.uniform()

    def depth_only(self) -> PruningPlan | None:
        """Return the plan without parts evenly over the depth; None: it would be over budget."""
        for count in range(len(self.parts) + 1):
            gone = frozenset(evenly(self.parts, count))
            if self.left(gone).fits:
                return PruningPlan(removed_layers=gone)
        return None

    def controls(self) -> dict[str, PruningPlan]:
        """Return uniform depth and width, and, where they meet the budget, each of them alone."""
        found = {"uniform": self.uniform()}
        if (depth := self.depth_only()) is not None:
            found["uniform depth"] = depth
        if self.left(()).reachable:
            found |= {f"{name} width": plan for name, plan in self.widths.controls().items()}
        return found

    def menu(self) -> Menu | None:
        """Return what every width of each group, and each part, loses and costs; None where it was
        not measured.

        A block without a part is one whose inner channels are all removed: it loses as much.
        """
        menu = self.widths.menu()
        if menu is None:
            return None
        groups, levels = menu.actions.shape
        gone = torch.ones(len(self.parts), levels, dtype=torch.float64)
        gone[:, 0] = 0.0
        lost = torch.tensor([self.loss(part) for part in self.parts], dtype=torch.float64)
        linear = -torch.from_numpy(self.saved_by_part())
        pairs = torch.zeros(self.size, self.size, dtype=torch.float64)
        pairs[:groups, :groups] = menu.pairs
        saved = self.widths.saved_by_group()
        for column, part in enumerate(self.parts, start=groups):
            pairs[:groups, column] = torch.from_numpy(saved - self.left([part]).saved_by_group())
        return Menu(
            torch.cat([menu.actions, 1.0 - gone]),
            torch.cat([menu.removed, gone]),
            torch.cat([menu.errors, gone * lost[:, None]]),
            torch.cat([menu.linear, linear]),
            pairs, menu.dense, menu.limit,
        )  # fmt: skip

    def saved_by_part(self) -> np.ndarray:
        """Return what the dense network costs less without each part alone `[P]`."""
        return np.array([self._whole - self.left([part]).whole for part in self.parts])

    def loss(self, part: str) -> float:
        """The residual of removing all channels of one group inside a part, the least of them."""
        layers = {node.layer for node in members(self.graph)[part]}
        inner = [g.name for g in self.graph.groups if set(g.layers) <= layers]
        known = [self.widths.curves[name] for name in inner if name in self.widths.curves]
        every = sum(float(curve[-1]) for curve in self.widths.curves.values())
        return min((float(curve[-1] - curve[0]) for curve in known), default=every)

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the dense cost that a plan takes, of the budget's resource."""
        return self.left(plan.removed_layers).cost_of(plan) / self._whole

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the network's graph with these entries `[D]` (None: all is kept)."""
        count = len(self.widths.names)
        if keep is None:
            return self._view.joined(self.widths.observation(), np.ones(len(self.parts)))
        stays = np.array([0.0 if self._out(entry) else 1.0 for entry in keep[count:]])
        return self._view.joined(self.widths.observation(keep[:count]), stays)

    def _from(self, entries: np.ndarray) -> np.ndarray:
        """Entries of parts `[P]` as departures from the prior."""
        return entries - 0.5 * self._prior

    def _start(self) -> None:
        """Make the plan of least residual the prior.

        The parts are those of the menu's solution, whose costs of widths are an approximation; what
        is left is allocated by its own costs.
        """
        menu = self.menu()
        assert menu is not None
        rows, levels = torch.arange(self.size), torch.from_numpy(solve(menu, np.ones(self.size)))
        self._prior = menu.removed[rows, levels].numpy()[self.widths.size :] > 0.5
        self._losses = np.array([self.loss(part) for part in self.parts])
        left = self.left(part for part, gone in zip(self.parts, self._prior, strict=True) if gone)
        self.widths = self.widths.around(left.allocation())
        self._left.clear()

    @staticmethod
    def _out(entry: float) -> bool:
        return bool(entry < REMOVED_BELOW)

    def _check_reachable(self) -> None:
        least = self.left(self.parts)
        if not least.reachable:
            raise UserError(
                f"budget.{self.budget.resource} {self.budget.fraction} cannot be met: without all "
                f"{len(self.parts)} removable parts, and with the fewest channels, "
                f"{least.least / self._whole:.4f} of the dense network remains; raise the budget"
            )
