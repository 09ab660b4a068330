"""What a budget can limit: one table, in which a new kind of budget is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnrl.errors import UserError
from gnnrl.registry import imported

if TYPE_CHECKING:
    from gnnrl.graph.cost_model import CostModel
    from gnnrl.graph.graph import ComputationalGraph
    from gnnrl.graph.latency import LatencyTable


@dataclass(frozen=True)
class Resource:
    """How the costs of a graph are computed.

    model: takes a graph and gives an `AxisCosts`, or `package.module:name` of it; with
    `needs_table` it is given a latency table, too, and may give any `CostModel`.  None: the
    resource counts filters or single weights, so that its budget, with `is_removed`, is the
    fraction of them that is removed.
    """

    model: Callable[..., CostModel] | str | None
    needs_table: bool = False
    is_removed: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether the graph alone tells the cost, as a sum of products of lengths."""
        return self.model is not None and not self.needs_table


RESOURCES: dict[str, Resource] = {
    "flops": Resource("gnnrl.graph.cost_model:flops"),
    "parameters": Resource("gnnrl.graph.cost_model:parameters"),
    "latency": Resource("gnnrl.graph.latency:LatencyCosts", needs_table=True),
    "sparsity": Resource(None, is_removed=True),
}


def counted() -> list[str]:
    """The resources whose cost the graph alone tells."""
    return [name for name, resource in RESOURCES.items() if resource.is_counted]


def costs_of(
    resource: str, graph: ComputationalGraph, table: LatencyTable | None = None
) -> CostModel:
    """The costs of a graph, in the unit of a resource.

    Raises `UserError` for a resource that counts filters or single weights, and where a latency
    table is missing.
    """
    found = RESOURCES[resource]
    if found.model is None:
        others = " or ".join(f"budget.{name}" for name in counted())
        raise UserError(
            f"budget.{resource} counts filters or single weights, which only the spaces filters "
            f"and single_weights do: take one of them, or give {others}"
        )
    model = found.model
    if isinstance(model, str):
        model = imported(model, "resource")
    if not found.needs_table:
        return model(graph)
    if table is None:
        raise UserError(
            f"a budget of {resource} needs a latency table; measure one with "
            "`python -m stages.latency` and name it in search.latency_table"
        )
    return model(graph, table)
