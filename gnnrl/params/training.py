"""How networks are trained, as it stands in params.yaml in several places."""

from __future__ import annotations

from typing import Literal

from gnnrl.settings import Count, CountOrNone, NotNegative, Positive, Probability, Section, Switch


class Recipe(Section):
    """One course of training."""

    epochs: CountOrNone
    batch_size: Count
    learning_rate: Positive
    momentum: Probability
    nesterov: Switch
    weight_decay: NotNegative
    schedule: str
    milestones: tuple[Count, ...]
    warmup_epochs: NotNegative
    label_smoothing: Probability
    augment: Switch
    bf16: Switch
    channels_last: Switch
    processes: Count | None = None  # absent: one
    machines: Count | None = None


class Distillation(Section):
    """What the dense network teaches the subnet; alpha 0: nothing.

    weight: instead of alpha, what the teacher counts beside the labels.
    """

    alpha: Probability
    temperature: Positive
    kind: Literal["kl", "mse"]
    weight: NotNegative | None = None
