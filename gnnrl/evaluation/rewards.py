"""Rewards by name, what they may depend on, and the settings of a one-shot evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import field_validator, model_validator

from gnnrl.evaluation.training_settings import ShortTraining
from gnnrl.registry import named
from gnnrl.runtime import has_bfloat16
from gnnrl.settings import Count, CountOrNone, Settings, Share, name_in


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a reward may depend on: the subnet on the reward images, and what it costs.

    accuracy, dense_accuracy: in [0, 1]; in another task than classification its metric, such as
    mean IoU.  loss: of the task, mean over images.  divergence: mean Kullback-Leibler divergence
    from the dense network; jensen_shannon: that of Jensen and Shannon, in [0, ln 2].
    flops_kept, parameters_kept: fractions of the dense network's, (0, 1].
    squared_error: of the outputs, over their squared length; cosine: with the dense outputs.
    What a task does not have is NaN.
    """

    accuracy: float
    loss: float
    divergence: float
    jensen_shannon: float
    dense_accuracy: float
    flops_kept: float
    parameters_kept: float
    squared_error: float = math.nan
    cosine: float = math.nan


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


CONSTRAINED = "n2n_constrained"
"""The reward that punishes students over the budget, and below the accuracy of `at_least`."""


def fewest_flops(measured: Measured, at_least: float) -> float:
    """Return 1 plus the fraction of flops saved; below the accuracy: accuracy / at_least."""
    return _smallest(measured.accuracy, at_least, measured.flops_kept)


def fewest_parameters(measured: Measured, at_least: float) -> float:
    """As `fewest_flops`, of the parameters."""
    return _smallest(measured.accuracy, at_least, measured.parameters_kept)


def _smallest(accuracy: float, at_least: float, kept: float) -> float:
    return 2.0 - kept if accuracy >= at_least else accuracy / at_least


SMALLEST: dict[str, Callable[[Measured, float], float]] = {
    "fewest_flops": fewest_flops,
    "fewest_parameters": fewest_parameters,
}
"""Rewards for the smallest subnet of at least an accuracy: they order plans by that alone."""

REWARDS: dict[str, Callable[..., float]] = {
    "accuracy": lambda m: m.accuracy,
    "loss": lambda m: -m.loss,
    "divergence": lambda m: -m.divergence,
    "jensen_shannon": lambda m: -m.jensen_shannon,
    "squared_error": lambda m: -m.squared_error,
    "cosine": lambda m: m.cosine,
    "n2n": n2n,
    CONSTRAINED: n2n,  # `Students` see to the constraint
    "sagemaker": sagemaker,
    **SMALLEST,
}
"""By name, as are functions of the user's own; all higher = better."""


class RewardSettings(Settings):
    """How a plan is scored on the reward images."""

    kind: Annotated[str, name_in("gnnrl.evaluation.rewards:REWARDS")] = "loss"
    """accuracy (or the task's metric); minus loss, divergence, jensen_shannon; n2n ..."""
    at_least: Share | None = None
    """Accuracy (or metric) on reward images; fewest_flops and fewest_parameters keep to it."""
    statistics: Literal["matched", "batch", "images", "kept"] = "matched"
    """Of batch norm: matched (to the dense network's), batch, kept; images: of training images."""
    statistics_images: CountOrNone = 0
    """Reward images that give matched or batch statistics for all, faster with 100; 0: all."""
    recalibration_images: Count = 256
    """For `images`: measured on so many training images."""
    compensation: Literal["none", "mean_shift", "gram"] = "none"
    """gram: layers compensate for inputs that they lost; mean_shift: for their mean only."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of the subnet; bfloat16 ranks plans alike; auto: bfloat16 where the processor has it."""
    batch_size: Count = 512
    """Images that pass the subnet at once."""
    race: CountOrNone = 0
    """Images on which losers of a batch are recognised and stopped; 0: none are."""
    training: ShortTraining | None = None
    """Train subnets before they are scored; absent: they are not."""

    @field_validator("precision")
    @classmethod
    def _what_the_processor_has(cls, precision: str) -> str:
        if precision == "auto":
            return "bfloat16" if has_bfloat16() else "float32"
        return precision

    @property
    def function(self) -> Callable[[Measured], float]:
        """What gives the reward."""
        found = named(self.kind, REWARDS, "reward")
        return partial(found, at_least=self.at_least) if self.kind in SMALLEST else found

    @model_validator(mode="after")
    def _an_accuracy_is_given_where_it_counts(self) -> RewardSettings:
        if self.kind in SMALLEST and self.at_least is None:
            raise ValueError(
                f"has the kind {self.kind}, which finds the smallest subnet of at least an "
                "accuracy: give 'at_least', such as 0.9"
            )
        if self.kind in SMALLEST and self.race:
            raise ValueError(
                f"has the kind {self.kind} and a race, which stops plans by their loss, small ones "
                "above all: set 'race' to 0"
            )
        if self.at_least is not None and self.kind not in (*SMALLEST, CONSTRAINED):
            raise ValueError(
                f"has at_least {self.at_least:g}, but the kind {self.kind}, which does not keep to "
                f"it: take it out, or set 'kind' to {', '.join(SMALLEST)} or {CONSTRAINED}"
            )
        return self

    @model_validator(mode="after")
    def _statistics_can_be_measured(self) -> RewardSettings:
        images = self.statistics_images
        if images and self.statistics not in ("matched", "batch"):
            raise ValueError(
                f"has statistics_images {images}, but the statistics {self.statistics}, which are "
                "not of reward images: set 'statistics_images' to 0, or 'statistics' to matched "
                "or batch"
            )
        if images > self.batch_size:
            raise ValueError(
                f"has statistics_images {images}, which pass at once, expected at most the "
                f"batch_size {self.batch_size}: lower the first or raise the second"
            )
        return self
