"""How a network is trained: stochastic gradient descent and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gnnrl.errors import UserError


@dataclass(frozen=True)
class TrainingRecipe:
    """One course of training.

    schedule: a key of SCHEDULES.
    milestones: epochs after which the step schedule divides the learning rate by ten.
    warmup_epochs: epochs over which the learning rate rises from zero, before the schedule.
    label_smoothing: share of the target that is spread over all classes, [0, 1).
    augment: change the images at random, as the data set has it.
    bf16, channels_last: faster on some devices, with other rounding.
    processes: that train together on each machine, one GPU each where there are GPUs; each has its
        part of every batch.  machines: on which the same command is started.  None: one.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    augment: bool = True
    bf16: bool = False
    channels_last: bool = False
    processes: int | None = None
    machines: int | None = None

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"schedule is {self.schedule!r}, expected one of {', '.join(SCHEDULES)}"
            )
        for name, low, high in (
            ("epochs", 0, math.inf),
            ("batch_size", 1, math.inf),
            ("learning_rate", 0, math.inf),
            ("momentum", 0, 1),
            ("weight_decay", 0, math.inf),
            ("warmup_epochs", 0, max(self.epochs, 0)),
            ("label_smoothing", 0, 1),
            ("processes", 1, self.batch_size),
            ("machines", 1, math.inf),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} is {value}, expected {low} to {high}")
        if self.nesterov and not self.momentum:
            raise UserError("nesterov needs a momentum above 0: raise momentum or switch it off")

    def learning_rate_at(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs (0 at the start, fractions within one)."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * epoch / self.warmup_epochs
        return self.learning_rate * SCHEDULES[self.schedule](self, epoch)

    def share_done(self, epoch: float) -> float:
        """Return the fraction [0, 1] of the training after the warm-up that lies behind."""
        return (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)


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
