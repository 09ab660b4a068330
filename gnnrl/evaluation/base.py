"""What is known of a plan once it has been evaluated, and rewards made of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good one plan is. All fields are JSON values: evaluations are journalled.

    reward: what the agent maximises.  accuracy: in [0, 1], on reward images.
    flops, parameters: of the cut network.  status: "ok", or in a few words why it could not be run.
    cached: this plan had been evaluated before, nothing was run.
    cost: in evaluation equivalents (1 = 500 forward images); what the search is charged.
    x_factor: how many times fewer parameters than the dense network, where the evaluator says so.
    dir: name of the folder a trained student is kept in, empty where there is none.
    """

    reward: float
    accuracy: float = math.nan
    flops: int = 0
    parameters: int = 0
    status: str = "ok"
    cached: bool = False
    cost: float = 1.0
    x_factor: float | None = None
    dir: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward):
            raise ValueError(
                f"reward {self.reward} of an evaluation is not a finite number "
                f"(status {self.status!r}; give a plan that cannot be run a bad reward instead)"
            )
        if self.cost < 0:
            raise ValueError(f"cost {self.cost} of an evaluation: expected at least 0")

    def row(self) -> dict[str, Any]:
        """Return the fields as a flat dict, ready for JSON or a table; without those of students
        where none was trained."""
        row = dataclasses.asdict(self)
        if self.x_factor is None:
            del row["x_factor"], row["dir"]
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation written by `row()`."""
        return cls(**row)

    def as_cached(self) -> Evaluation:
        """Return the same evaluation, marked as not run again and free of cost."""
        return dataclasses.replace(self, cached=True, cost=0.0)


EQUIVALENT = 500
"""Forward images of one evaluation equivalent, the unit that costs of searches are compared in."""
