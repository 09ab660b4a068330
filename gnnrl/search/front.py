"""The front of a search for several budgets: a plan for each, and for any budget between them."""

# B: budgets   G: groups   U: units

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.files import read_json, write_json
from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.spaces.channels import ChannelSpace

FILE = "front.json"


@dataclass(frozen=True)
class Front:
    """Plans of one network that keep the most important channels of each group.

    graph: its digest.  resource, budgets `[B]`: fractions of the dense cost, ascending.
    widths `[B, G]`: channels that are kept.  order `[U]`: units, the best of each group first.
    multiple, min_channels: of the search space.
    """

    graph: str
    resource: str
    budgets: list[float]
    widths: list[list[int]]
    order: list[int]
    multiple: int = 1
    min_channels: int = 1

    @classmethod
    def of(cls, plans: Mapping[float, tuple[ChannelSpace, PruningPlan]]) -> Front:
        """Return the front of these plans, by the budgets of their spaces."""
        budgets = sorted(plans)
        widths = [plans[b][0].widths(plans[b][1]).tolist() for b in budgets]
        space, _ = plans[budgets[0]]
        return cls(
            space.graph.digest, space.budget.resource, budgets, widths, space.order.tolist(),
            space.multiple, space.min_channels,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Front:
        """Read the front of a search from its results; `UserError` where there is none."""
        path = folder / FILE
        if not path.exists():
            raise UserError(
                f"there is no front {path}: set search.budgets to further budgets and run "
                "`python -m stages.search`"
            )
        content: Any = read_json(path)
        try:
            return cls(**content)
        except TypeError as error:
            raise UserError(f"{path} is no front ({error}): run the search again") from None

    def write(
        self, folder: Path, graph: ComputationalGraph, fraction: float, table: LatencyTable | None
    ) -> Path:
        """Write the plan for a budget into a folder; return its file."""
        path = folder / f"plan-{fraction:g}.json"
        self.plan_for(graph, fraction, table).save(path, graph.digest)
        return path

    def plan_for(
        self, graph: ComputationalGraph, fraction: float, table: LatencyTable | None = None
    ) -> PruningPlan:
        """Return the plan for a budget; between two of the search, its widths lie between theirs.

        table: for a budget of latency.  Raises `UserError` outside of the budgets of the search.
        """
        low, high = self.budgets[0], self.budgets[-1]
        if not low <= fraction <= high:
            raise UserError(
                f"the front holds budgets of {self.resource} from {low:g} to {high:g}, got "
                f"{fraction:g}: choose one of these, or search with it among search.budgets"
            )
        if graph.digest != self.graph:
            raise UserError("the front is of another graph: search this network again")
        rank = torch.empty(len(self.order), dtype=torch.float64)
        rank[torch.tensor(self.order)] = torch.arange(len(self.order), 0, -1).double()
        scores = {g.name: rank[g.start : g.start + g.size] for g in graph.groups}
        space = ChannelSpace(
            graph, Importance(scores), Budget.of(fraction, self.resource), table=table,
            multiple=self.multiple, min_channels=self.min_channels, view="plain",
        )  # fmt: skip
        if fraction in self.budgets:
            return space.plan_of(np.array(self.widths[self.budgets.index(fraction)]))
        sizes = np.array([group.size for group in graph.groups])
        logs = np.log(np.array(self.widths) / sizes)
        between = [np.interp(fraction, self.budgets, column) for column in logs.T]
        return space.plan(np.exp(between))
