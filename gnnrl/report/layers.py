"""Where the cost of a network sits, layer by layer, and what a plan keeps of it."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl.graph.cost import reduced
from gnnrl.graph.cost_model import AxisCosts, flops_of
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.plan import PruningPlan


@dataclass(frozen=True)
class LayerCost:
    """dense, kept: flops of a layer.  channels, channels_kept: of its output; 0 where it has
    none.  most: flops of the most expensive layer."""

    layer: str
    dense: int
    kept: int
    channels: int
    channels_kept: int
    most: int = 1

    @property
    def of_most(self) -> float:
        """Percent of the most expensive layer, which the bar's whole width stands for."""
        return 100 * self.dense / self.most

    @property
    def percent(self) -> float:
        """Percent of the layer's flops that are kept."""
        return 100 * self.kept / self.dense


def layer_costs(graph: ComputationalGraph, plan: PruningPlan) -> list[LayerCost]:
    """Return every operation that costs something, in the network's order."""
    left = reduced(graph, plan)
    keep = kept_units(left, plan.kept)
    after = {node.name: AxisCosts(flops_of(left, node)).of_units(keep) for node in left.nodes}
    found = []
    for node in graph.nodes:
        if dense := AxisCosts(flops_of(graph, node)).without(()):
            kept = after.get(node.name, 0)
            total, held = _channels(node, plan, kept)
            found.append((node.layer or node.name, dense, kept, total, held))
    most = max((row[1] for row in found), default=1)
    return [LayerCost(*row, most) for row in found]


def _channels(node: Node, plan: PruningPlan, kept: int) -> tuple[int, int]:
    if node.filters is None:
        return 0, 0
    total = len(node.filters.units)
    return total, len(plan.kept.get(node.layer, node.filters.units)) if kept else 0
