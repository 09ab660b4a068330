"""How much of the dense network a subnet may cost."""

# R: resources   A: different axes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.cost_model import CostModel, full_length
from gnnrl.graph.resources import RESOURCES, costs_of
from gnnrl.registry import hint

if TYPE_CHECKING:
    from gnnrl.graph.graph import ComputationalGraph
    from gnnrl.graph.latency import LatencyTable


@dataclass(frozen=True, init=False)
class Budget:
    """Allowed fraction of the dense cost, (0, 1]: `Budget(flops=0.5)`; of several resources, all
    are met: `Budget(flops=0.5, parameters=0.6)`.

    shares: by resource, a key of RESOURCES, the value as it was given; for `sparsity`, which stands
    alone, the fraction of all filters that is removed, [0, 1).
    """

    shares: tuple[tuple[str, float], ...]

    def __init__(self, **fractions: float | None) -> None:
        for name in fractions:
            if name not in RESOURCES:
                known = f"known are {', '.join(RESOURCES)}"
                raise UserError(f"there is no budget {name!r}; {hint(name, RESOURCES, known)}")
        given = {name: value for name, value in fractions.items() if value is not None}
        alone = any(RESOURCES[name].is_removed for name in given)
        if not given or (alone and len(given) > 1):
            kept = [name for name, resource in RESOURCES.items() if not resource.is_removed]
            removed = [name for name in RESOURCES if name not in kept]
            do = "set the others to null" if given else "give one of them a number"
            raise UserError(
                f"a budget names {', '.join(kept)} (one, or several that are all met) or "
                f"{', '.join(removed)} alone, got {', '.join(given) or 'none'}; {do}"
            )
        for name, value in given.items():
            _check(name, value)
        object.__setattr__(self, "shares", tuple(given.items()))

    @classmethod
    def of(cls, budget: Budget | float, resource: str = "flops") -> Budget:
        """A bare number is a budget of `resource`."""
        return budget if isinstance(budget, Budget) else cls(**{resource: budget})

    @property
    def resource(self) -> str:
        """The only resource; `UserError` where there are several."""
        if len(self.shares) > 1:
            raise UserError(
                f"the budget is of {self}, but only the space channels meets several at once, in a "
                "search for one budget: set all but one to null"
            )
        return self.shares[0][0]

    @property
    def value(self) -> float:
        """The least value, as it was given."""
        return min(value for _, value in self.shares)

    @property
    def fraction(self) -> float:
        """How much of the dense network may be kept, (0, 1]: the least of all resources."""
        return min(_kept(name, value) for name, value in self.shares)

    def costs(self, graph: ComputationalGraph, table: LatencyTable | None = None) -> CostModel:
        """Return what the budget limits, as a function of the lengths of axes.

        A plan is within the budget where this is at most `fraction` of the whole network's.
        """
        models = [costs_of(name, graph, table) for name, _ in self.shares]
        if len(models) == 1:
            return models[0]
        return Tightest(models, [_kept(name, value) for name, value in self.shares])

    def __str__(self) -> str:
        return " and ".join(f"{value:g} of the {name}" for name, value in self.shares)


def share_of(graph: ComputationalGraph | None, resource: str, value: float) -> float:
    """Return a budget as a fraction of what the graph costs, where it is a number above 1.

    Costs are whole numbers: half a unit is added, so that rounding makes the limit no smaller.
    """
    if value <= 1:
        return value
    if graph is None:
        return 1.0
    costs = costs_of(resource, graph)
    whole = costs.of_lengths(np.array([full_length(axis) for axis in costs.axes]))
    return min(1.0, (value + 0.5) / float(whole))


class Tightest:
    """The cost of the resource whose fraction is met least, a `CostModel`.

    It is 1 for the whole network, and the least of the fractions where all are just met.
    """

    def __init__(self, models: Sequence[CostModel], fractions: Sequence[float]) -> None:
        """models, fractions `[R]`."""
        self._models = list(models)
        self.axes = [axis for model in models for axis in model.axes]
        self._ends = np.cumsum([len(model.axes) for model in models])[:-1]
        whole = self._each(np.array([full_length(axis) for axis in self.axes]))
        self._scale = min(fractions) / (np.array(fractions) * whole)

    def of_lengths(self, lengths: Any) -> float:
        """Cost when the axes have these lengths `[A]`."""
        return float((self._each(lengths) * self._scale).max())

    def _each(self, lengths: np.ndarray) -> np.ndarray:
        parts = zip(self._models, np.split(lengths, self._ends), strict=True)
        return np.array([float(model.of_lengths(part)) for model, part in parts])


def _kept(name: str, value: float) -> float:
    return 1.0 - float(value) if RESOURCES[name].is_removed else float(value)


def _check(name: str, value: object) -> None:
    """Raise `UserError` for what is no fraction."""
    number = float(value) if isinstance(value, int | float) and value is not True else -1.0
    if RESOURCES[name].is_removed:
        valid, what = 0 <= number < 1, "[0, 1), the fraction of filters or single weights to remove"
    else:
        valid, what = 0 < number <= 1, "(0, 1], a fraction of the dense network"
    if not valid:
        raise UserError(f"budget.{name} must be in {what}, got {value}")


def largest(
    fits: Callable[[float], bool], low: float, high: float, steps: int
) -> tuple[float, float]:
    """The largest number that fits, by halving: the last that did, and the least that did not.

    fits: true up to some number between `low` and `high`, false above it.
    """
    for _ in range(steps):
        middle = (low + high) / 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low, high
