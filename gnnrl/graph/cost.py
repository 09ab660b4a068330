"""What a network costs, and what it will cost under a plan, without running anything.

What flops and parameters are is defined in `gnnrl.graph.cost_model`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph import cost_model
from gnnrl.graph.cost_model import AxisCosts, Term
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.kernels import shrunk
from gnnrl.graph.masks import unpacked
from gnnrl.graph.removal import without
from gnnrl.graph.unit_mapping import kept_units


class Plan(Protocol):
    """What `cost` reads of a plan (`gnnrl.pruning.plan.PruningPlan` is one)."""

    @property
    def kept(self) -> Mapping[str, tuple[int, ...]]:
        """For each layer that loses filters, the indices of those that it keeps, ascending."""

    @property
    def removed_layers(self) -> frozenset[str]:
        """Layers and blocks that are replaced by the identity."""

    @property
    def weight_sparsity(self) -> Mapping[str, float]:
        """For each layer, the fraction of its weights that are set to zero, [0, 1)."""

    @property
    def kernels(self) -> Mapping[str, int]:
        """For each convolution whose kernel becomes smaller, its size."""

    @property
    def masks(self) -> Mapping[str, str]:
        """For each layer that loses single weights, which it keeps (`gnnrl.graph.masks`)."""


@dataclass(frozen=True)
class Cost:
    """flops: multiply-accumulates for one image.  parameters: trainable numbers that are not zero
    by plan."""

    flops: int
    parameters: int


def cost(
    graph: ComputationalGraph, plan: Plan | None = None, keep: np.ndarray | None = None
) -> Cost:
    """Cost of the network, or of the subnet that `plan` leaves.

    keep `[num_units]`: the units of the plan, where they are known.
    Raises `UserError` where the plan is not one for this graph.
    """
    return Costs(graph).of(plan, keep)


class Costs:
    """Costs of many plans of one graph, whose terms are collected once."""

    def __init__(self, graph: ComputationalGraph) -> None:
        self._graph = graph
        self._models = cost_model.flops(graph), cost_model.parameters(graph)

    def of(self, plan: Plan | None = None, keep: np.ndarray | None = None) -> Cost:
        """Return what `cost` does."""
        graph = self._graph
        if plan is None:
            return self.of_units(np.ones(graph.num_units, dtype=bool))
        if plan.removed_layers or plan.kernels:
            left = reduced(graph, plan)
            return Costs(left)._of_channels(plan, kept_units(left, plan.kept))
        return self._of_channels(plan, kept_units(graph, plan.kept) if keep is None else keep)

    def of_units(self, keep: np.ndarray) -> Cost:
        """Cost of what is left when the units with `keep` `[num_units]` true are kept."""
        return Cost(*(model.of_units(keep) for model in self._models))

    def _of_channels(self, plan: Plan, keep: np.ndarray) -> Cost:
        whole = self.of_units(keep)
        removed = _zeros(self._graph, keep, plan.weight_sparsity)
        removed += _masked(self._graph, plan.masks)
        return replace(whole, parameters=whole.parameters - removed)


def reduced(graph: ComputationalGraph, plan: Plan) -> ComputationalGraph:
    """Return the graph without the parts that a plan removes, with the kernels that it leaves."""
    return shrunk(without(graph, plan.removed_layers), plan.kernels)


def cost_of_units(graph: ComputationalGraph, keep: np.ndarray) -> Cost:
    """Cost of what is left when the units with `keep` `[num_units]` true are kept."""
    return Costs(graph).of_units(keep)


def zeros(size: int, sparsity: float) -> int:
    """How many of `size` weights a sparsity sets to zero: at least one is kept."""
    return min(round(sparsity * size), size - 1)


def _zeros(graph: ComputationalGraph, keep: np.ndarray, sparsity: Mapping[str, float]) -> int:
    """Weights that a plan sets to zero."""
    total = 0
    for layer, fraction in sparsity.items():
        weight = graph.parameters[weight_of(graph, layer)]
        total += zeros(AxisCosts([Term.of(weight)]).of_units(keep), fraction)
    return total


def _masked(graph: ComputationalGraph, masks: Mapping[str, str]) -> int:
    """Weights that a plan's masks set to zero."""
    total = 0
    for layer, text in masks.items():
        size = math.prod(graph.parameters[weight_of(graph, layer)].shape)
        total += size - int(unpacked(layer, text, size).sum())
    return total


def weight_of(graph: ComputationalGraph, layer: str) -> str:
    """Return the name of a layer's weight; `UserError` where the network has no such layer."""
    if layer not in graph.layers:
        raise UserError(
            f"the plan names layer {layer!r}, which this network does not have; it is a plan of "
            "another network"
        )
    return graph.layers[layer].parameters[0]
