"""How a network is trained, and what a teacher adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import field_validator, model_validator

from gnnrl.settings import (
    BelowOne,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Probability,
    Settings,
    Switch,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


class TrainingRecipe(Settings):
    """One training schedule: stochastic gradient descent with momentum, or AdamW."""

    epochs: CountOrNone = 10
    """Passes over the training images; 0: the network is not trained."""
    batch_size: Count = 64
    """Images of a step."""
    learning_rate: Positive = 0.1
    """Its maximum."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: convolutional networks; adamw: transformers, at a lower learning rate."""
    momentum: BelowOne = 0.9
    """Of the gradient; for sgd."""
    nesterov: Switch = True
    """Nesterov's momentum; for sgd."""
    weight_decay: NotNegative = 5e-4
    """Of all weights."""
    schedule: str = "one_cycle"
    """Of the learning rate: constant, cosine, step, one_cycle."""
    milestones: tuple[Count, ...] = ()
    """Epochs after which the schedule `step` divides the learning rate by ten."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the learning rate rises from zero, before the schedule."""
    label_smoothing: BelowOne = 0.0
    """Share of the target that is spread over all classes."""
    augment: Switch = True
    """Change the images at random, as `data.augmentation` says."""
    bf16: Switch = False
    """Compute in bfloat16: faster on some devices, with other rounding."""
    channels_last: Switch = False
    """Store channels last: faster on some devices, with other rounding."""
    processes: Count | None = None
    """Train together on each machine, one GPU each where there are GPUs; null: one."""
    machines: Count | None = None
    """On which the same command is started; null: one."""

    @field_validator("schedule")
    @classmethod
    def _known(cls, schedule: str) -> str:
        if schedule not in SCHEDULES:
            raise ValueError(f"must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        return schedule

    @model_validator(mode="after")
    def _fit_together(self) -> TrainingRecipe:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"has {self.warmup_epochs:g} warmup_epochs, expected at most its {self.epochs} "
                "epochs: lower the first or raise the second"
            )
        if self.processes is not None and self.processes > self.batch_size:
            raise ValueError(
                f"has {self.processes} processes, expected at most its batch_size "
                f"{self.batch_size}: lower the first or raise the second"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("has nesterov, which needs a momentum above 0: set nesterov to false")
        return self

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of these parameters.

        AdamW decays weights apart from the gradient (Loshchilov & Hutter 2019, algorithm 2).
        """
        import torch

        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=decay,
        )

    def learning_rate_at(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs (0 at the start, fractions within one)."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * epoch / self.warmup_epochs
        return self.learning_rate * SCHEDULES[self.schedule](self, epoch)

    def share_done(self, epoch: float) -> float:
        """Return the fraction [0, 1] of the training after the warm-up that lies behind."""
        return (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)


class DistillationSettings(Settings):
    """What a teacher, the dense network, adds to the labels."""

    alpha: Probability = 0.0
    """Share of the teacher in the loss; 0: labels only."""
    temperature: Positive = 4.0
    """By which the logits are divided before they are compared."""
    kind: Literal["kl", "mse"] = "kl"
    """kl, mse: how outputs are compared."""
    weight: NotNegative | None = None
    """Instead of alpha: weight of the teacher, added to the loss on the labels."""


def _constant(recipe: TrainingRecipe, epoch: float) -> float:
    return 1.0


def _cosine(recipe: TrainingRecipe, epoch: float) -> float:
    """Loshchilov & Hutter 2017, Eq. 5, one period down to zero."""
    return 0.5 * (1 + math.cos(math.pi * recipe.share_done(epoch)))


def _step(recipe: TrainingRecipe, epoch: float) -> float:
    return 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)


def _one_cycle(recipe: TrainingRecipe, epoch: float) -> float:
    """Smith 2018: up from 1/25 over the first three tenths, then down to nearly zero."""
    rise, low = 0.3, 1 / 25
    done = recipe.share_done(epoch)
    if done < rise:
        return low + (1 - low) * done / rise
    return 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))


SCHEDULES: Mapping[str, Callable[[TrainingRecipe, float], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "step": _step,
    "one_cycle": _one_cycle,
}
