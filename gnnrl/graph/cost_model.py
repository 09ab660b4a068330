"""What a network costs, as a function of the lengths of its axes.

cost = sum over terms of factor x length of one axis x length of another.  This is the one place
where flops and parameters are defined; lengths are counted, interpolated or expected elsewhere.
"""

# A: different axes   T: terms   U: units

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from gnnrl.graph.graph import FIXED, Channels, ComputationalGraph, Node, Parameter

if TYPE_CHECKING:
    from torch import Tensor

Lengths: TypeAlias = "np.ndarray | Tensor"


class CostModel(Protocol):
    """Cost of a network by the lengths of its axes.  axes `[A]`: the first has length one."""

    axes: list[Channels]

    def of_lengths(self, lengths: Any) -> Any:
        """Cost when the axes have these lengths `[A]`."""


class Axes:
    """Different axes; those with the same channels are one.  The first has length one."""

    def __init__(self) -> None:
        self.all = [Channels(0, ((FIXED, 1, 1),))]
        self._numbers: dict[tuple[tuple[int, int, int], ...], int] = {}

    def number(self, channels: Channels | None) -> int:
        """Place of an axis in `all`; None: the axis of length one."""
        if channels is None:
            return 0
        if channels.runs not in self._numbers:
            self._numbers[channels.runs] = len(self.all)
            self.all.append(channels)
        return self._numbers[channels.runs]


@dataclass(frozen=True)
class Term:
    """One product: `factor` times the lengths of `axes`.

    operations: names of the nodes that need it: removed with the last of them.  Empty: always kept.
    """

    factor: int
    axes: tuple[Channels, ...] = ()
    operations: frozenset[str] = frozenset()

    @classmethod
    def of(cls, parameter: Parameter, uses: int = 1, operations: Iterable[str] = ()) -> Term:
        """`uses` times the number of elements of a parameter."""
        shrinking = {channels.axis for channels in parameter.channels}
        rest = [n for axis, n in enumerate(parameter.shape) if axis not in shrinking]
        return cls(uses * math.prod(rest), parameter.channels, frozenset(operations))


class AxisCosts:
    """A sum of products of lengths."""

    def __init__(self, terms: Iterable[Term]) -> None:
        self._terms = list(terms)
        axes = Axes()
        rows = [[axes.number(channels) for channels in term.axes] for term in self._terms]
        most = max((len(row) for row in rows), default=0)
        width = max(most, 2)
        padded = [row + [0] * (width - len(row)) for row in rows]
        self.axes = axes.all
        self._columns = np.array(padded, dtype=np.int64).reshape(len(rows), width).T
        self._factor = np.array([term.factor for term in self._terms], dtype=np.int64)

    def of_lengths(self, lengths: Lengths) -> Any:
        """Cost when the axes have these lengths `[A]`; differentiable where they are."""
        if not isinstance(lengths, np.ndarray):
            return self._products(lengths) @ lengths.new_tensor(self._factor)
        return self._products(lengths) @ self._factor

    def of_units(self, keep: np.ndarray) -> int:
        """Cost when the units with `keep` `[U]` true are kept, exactly."""
        before = units_before(keep)
        return int(self.of_lengths(np.array([kept_length(axis, before) for axis in self.axes])))

    def without(self, operations: Collection[str]) -> int:
        """Cost of the whole network when these operations are taken out."""
        gone = frozenset(operations)
        needed = [not term.operations or not term.operations <= gone for term in self._terms]
        return int(self._whole[needed].sum())

    def of_operation(self, name: str) -> int:
        """What the terms of an operation cost in the whole network."""
        return int(self._whole[[name in term.operations for term in self._terms]].sum())

    @cached_property
    def _whole(self) -> np.ndarray:
        """What each term costs in the whole network `[T]`."""
        return self._products(np.array([full_length(axis) for axis in self.axes])) * self._factor

    def _products(self, lengths: Any) -> Any:
        """Products of the lengths of each term's axes `[T]`."""
        first, second, *more = (lengths[column] for column in self._columns)
        product = first * second
        for length in more:
            product = product * length
        return product


def flops(graph: ComputationalGraph) -> AxisCosts:
    """Multiply-accumulates of convolutions, linear layers and attention for one image."""
    return AxisCosts(term for node in graph.nodes for term in flops_of(graph, node))


def flops_of(graph: ComputationalGraph, node: Node) -> Iterator[Term]:
    """Yield what one operation costs."""
    if node.flops:
        yield Term(node.flops, operations=frozenset([node.name]))
    if node.positions:
        weight = graph.parameters[node.parameters[0]]
        yield Term.of(weight, node.positions, [node.name])
    for each, axis in node.products:
        yield Term(each, (axis,), frozenset([node.name]))


def parameters(graph: ComputationalGraph) -> AxisCosts:
    """Trainable numbers."""
    used: dict[str, list[str]] = {}
    for node in graph.nodes:
        for name in node.parameters:
            used.setdefault(name, []).append(node.name)
    return AxisCosts(
        Term.of(parameter, 1, used.get(name, ()))
        for name, parameter in graph.parameters.items()
        if not parameter.buffer
    )


def elements(graph: ComputationalGraph, node: Node) -> int:
    """Numbers that an operation holds, those that are not trained included."""
    return sum(math.prod(graph.parameters[name].shape) for name in node.parameters)


def units_before(keep: np.ndarray) -> np.ndarray:
    """How many units below each one are kept `[U + 1]`."""
    return np.concatenate([[0], np.cumsum(keep)])


def kept_length(axis: Channels, before: np.ndarray) -> int:
    """Length of an axis when units are removed; before: `units_before` of those that are kept."""
    return sum(
        count * repeat if first == FIXED else repeat * int(before[first + count] - before[first])
        for first, count, repeat in axis.runs
    )


def full_length(axis: Channels) -> int:
    """Length of an axis in the whole network."""
    return sum(count * repeat for _, count, repeat in axis.runs)
