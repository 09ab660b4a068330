"""How much of the dense network a subnet may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gnnrl.errors import UserError

RESOURCES = ("flops", "parameters", "latency", "sparsity")


@dataclass(frozen=True)
class Budget:
    """Allowed fraction of the dense cost, (0, 1], of exactly one resource.

    sparsity: instead, the fraction of all filters that go, [0, 1).
    """

    flops: float | None = None
    parameters: float | None = None
    latency: float | None = None
    sparsity: float | None = None

    def __post_init__(self) -> None:
        named = [name for name in RESOURCES if getattr(self, name) is not None]
        if len(named) != 1:
            raise UserError(
                f"a budget names exactly one of {', '.join(RESOURCES)}, got "
                f"{', '.join(named) or 'none'}; set the others to null"
            )
        value = getattr(self, named[0])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if named[0] == "sparsity" and not (number and 0 <= value < 1):
            raise UserError(
                f"budget.sparsity must be in [0, 1), the fraction of filters that go, got {value}"
            )
        if named[0] == "sparsity":
            return
        if not (number and math.isfinite(value) and 0 < value <= 1):
            raise UserError(
                f"budget.{named[0]} must be in (0, 1], a fraction of the dense network, got {value}"
            )

    @classmethod
    def of(cls, budget: Budget | float) -> Budget:
        """A bare number is a budget of flops."""
        return budget if isinstance(budget, Budget) else cls(flops=budget)

    @property
    def resource(self) -> str:
        """What is limited: flops, parameters, latency or (the number of filters) sparsity."""
        return next(name for name in RESOURCES if getattr(self, name) is not None)

    @property
    def fraction(self) -> float:
        """How much of the dense network may stay, (0, 1]."""
        value = float(getattr(self, self.resource))
        return 1.0 - value if self.resource == "sparsity" else value
