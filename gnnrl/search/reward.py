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


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a reward may depend on: the subnet on the reward images, and what it costs.

    accuracy, dense_accuracy: in [0, 1].  loss: mean cross-entropy.  divergence: mean
    Kullback-Leibler divergence from the dense network; jensen_shannon: that of Jensen and Shannon,
    in [0, ln 2].
    flops_kept, parameters_kept: fractions of the dense network's, (0, 1].
    """

    accuracy: float
    loss: float
    divergence: float
    jensen_shannon: float
    dense_accuracy: float
    flops_kept: float
    parameters_kept: float


def n2n(measured: Measured) -> float:
    """C (2 - C) A / A_teacher, C the fraction of parameters saved (Ashok et al. 2018, Eq. 5).

    As the paper, its code and the code of SageMaker's example have it.
    """
    saved = 1.0 - measured.parameters_kept
    return saved * (2.0 - saved) * relative_accuracy(measured)


def sagemaker(measured: Measured) -> float:
    """C A / ((2 - C) A_teacher), as SageMaker's example documents it."""
    saved = 1.0 - measured.parameters_kept
    return saved / (2.0 - saved) * relative_accuracy(measured)


def relative_accuracy(measured: Measured) -> float:
    """Accuracy over the teacher's, both on the reward images; 0 where neither is right at all."""
    return measured.accuracy / measured.dense_accuracy if measured.dense_accuracy else 0.0
