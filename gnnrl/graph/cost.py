"""What a network costs, and what it will cost under a plan, without running anything.

`flops` are multiply-accumulates of convolution and linear layers for one image; this is the one
place where they are defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.graph import FIXED, Channels, ComputationalGraph, Parameter
from gnnrl.graph.removal import without
from gnnrl.graph.unit_mapping import kept_units


class Plan(Protocol):
    """What `cost` reads of a plan (`gnnrl.pruning.plan.PruningPlan` is one)."""

    @property
    def kept(self) -> Mapping[str, tuple[int, ...]]:
        """For each layer that loses filters, the indices of those that it keeps, ascending."""

    @property
    def removed_layers(self) -> frozenset[str]:
        """Layers and units that are replaced by the identity."""

    @property
    def weight_sparsity(self) -> Mapping[str, float]:
        """For each layer, the fraction of its weights that are set to zero, [0, 1)."""


@dataclass(frozen=True)
class Cost:
    """flops: multiply-accumulates for one image.  parameters: trainable numbers that are not zero
    by plan.  activations: numbers that the operations write for one image."""

    flops: int
    parameters: int
    activations: int = 0


def cost(
    graph: ComputationalGraph, plan: Plan | None = None, keep: np.ndarray | None = None
) -> Cost:
    """Cost of the network, or of the subnet that `plan` leaves.

    keep `[num_units]`: the units of the plan, where they are known.
    Raises `UserError` where the plan is not one for this graph.
    """
    if plan is None:
        return cost_of_units(graph, np.ones(graph.num_units, dtype=bool))
    if plan.removed_layers:
        graph, keep = without(graph, plan.removed_layers), None
    if keep is None:
        keep = kept_units(graph, plan.kept)
    whole = cost_of_units(graph, keep)
    gone = _zeros(graph, keep, plan.weight_sparsity)
    return replace(whole, parameters=whole.parameters - gone)


def _zeros(graph: ComputationalGraph, keep: np.ndarray, sparsity: Mapping[str, float]) -> int:
    """Weights that a plan sets to zero."""
    length = _Lengths(keep)
    total = 0
    for layer, fraction in sparsity.items():
        if layer not in graph.layers:
            raise UserError(
                f"the plan names layer {layer!r}, which this network does not have; it is a plan "
                "of another network"
            )
        weight = graph.parameters[graph.layers[layer].parameters[0]]
        total += zeros(kept_size(weight, length), fraction)
    return total


def zeros(size: int, sparsity: float) -> int:
    """How many of `size` weights a sparsity sets to zero: at least one stays."""
    return min(round(sparsity * size), size - 1)


def cost_of_units(graph: ComputationalGraph, keep: np.ndarray) -> Cost:
    """Cost of what is left when the units with `keep` `[num_units]` true stay."""
    length = _Lengths(keep)
    sizes = {name: kept_size(p, length) for name, p in graph.parameters.items()}
    return Cost(
        flops=sum(
            n.flops
            + (n.positions * sizes[n.parameters[0]] if n.positions else 0)
            + sum(each * length(channels) for each, channels in n.products)
            for n in graph.nodes
        ),
        parameters=sum(sizes[name] for name, p in graph.parameters.items() if not p.buffer),
        activations=sum(_kept_shape(n.shape, n.channels, length) for n in graph.nodes),
    )


class _Lengths:
    """Lengths of axes after a cut; axes of the same channels are counted once."""

    def __init__(self, keep: np.ndarray) -> None:
        self._before = np.concatenate([[0], np.cumsum(keep)])
        self._known: dict[tuple[tuple[int, int, int], ...], int] = {}

    def __call__(self, channels: Channels) -> int:
        known = self._known.get(channels.runs)
        if known is None:
            known = self._known[channels.runs] = kept_length(channels, self._before)
        return known


def kept_size(parameter: Parameter, length: Callable[[Channels], int]) -> int:
    """Elements of a parameter that stay, when `length` tells how long its axes will be."""
    shape = list(parameter.shape)
    for channels in parameter.channels:
        shape[channels.axis] = length(channels)
    return math.prod(shape)


def kept_length(channels: Channels, before: np.ndarray) -> int:
    """Length of an axis after the cut; `before[u]`: units below u that stay."""
    return sum(
        count * repeat if first == FIXED else repeat * int(before[first + count] - before[first])
        for first, count, repeat in channels.runs
    )


def _kept_shape(
    shape: tuple[int, ...], channels: Channels | None, length: Callable[[Channels], int]
) -> int:
    if channels is None:
        return math.prod(shape)
    axis = channels.axis - 1  # node shapes are given without the batch axis
    rest = math.prod(shape[:axis]) * math.prod(shape[axis + 1 :])
    return rest * length(channels)
