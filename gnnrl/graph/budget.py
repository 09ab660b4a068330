"""How much of the dense network a subnet may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gnnrl.errors import UserError
from gnnrl.graph.resources import RESOURCES
from gnnrl.registry import hint


@dataclass(frozen=True, init=False)
class Budget:
    """Allowed fraction of the dense cost, (0, 1], of exactly one resource: `Budget(flops=0.5)`.

    resource: a key of RESOURCES.  value: as it was given; for `sparsity` the fraction of all
    filters that is removed, [0, 1).
    """

    resource: str
    value: float

    def __init__(self, **fractions: float | None) -> None:
        for name in fractions:
            if name not in RESOURCES:
                known = f"known are {', '.join(RESOURCES)}"
                raise UserError(f"there is no budget {name!r}; {hint(name, RESOURCES, known)}")
        given = {name: value for name, value in fractions.items() if value is not None}
        if len(given) != 1:
            raise UserError(
                f"a budget names exactly one of {', '.join(RESOURCES)}, got "
                f"{', '.join(given) or 'none'}; set the others to null"
            )
        ((name, value),) = given.items()
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        if RESOURCES[name].is_removed:
            valid, what = valid and 0 <= value < 1, "[0, 1), the fraction of filters to remove"
        else:
            valid, what = valid and 0 < value <= 1, "(0, 1], a fraction of the dense network"
        if not valid:
            raise UserError(f"budget.{name} must be in {what}, got {value}")
        object.__setattr__(self, "resource", name)
        object.__setattr__(self, "value", value)

    @classmethod
    def of(cls, budget: Budget | float, resource: str = "flops") -> Budget:
        """A bare number is a budget of `resource`."""
        return budget if isinstance(budget, Budget) else cls(**{resource: budget})

    @property
    def fraction(self) -> float:
        """How much of the dense network may be kept, (0, 1]."""
        value = float(self.value)
        return 1.0 - value if RESOURCES[self.resource].is_removed else value


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
