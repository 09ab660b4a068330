"""How subnets are trained before they are scored."""

from __future__ import annotations

import math
from typing import Literal

from gnnrl.settings import BelowOne, Count, CountOrNone, NotNegative, Positive, Settings
from gnnrl.training.recipe import DistillationSettings, TrainingRecipe


class ShortTraining(Settings):
    """How long, and how, a subnet is trained before it is scored."""

    epochs: Positive = 1.0
    """Over the training images; less than one is that part of them."""
    batch_size: Count = 64
    """Images of a step."""
    learning_rate: Positive = 0.05
    """Its maximum."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    """Of the learning rate; one_cycle ends low, so that few epochs rank subnets more clearly."""
    momentum: BelowOne = 0.9
    """Of the gradient."""
    weight_decay: NotNegative = 5e-4
    """Of all weights."""

    @property
    def rounds(self) -> int:
        """Whole epochs of the part of the images that is trained on."""
        return max(1, math.ceil(self.epochs))

    def share(self, images: int) -> int:
        """Return how many of the training images one round goes over."""
        return max(1, round(images * self.epochs / self.rounds))

    def recipe(self) -> TrainingRecipe:
        """Return the training schedule."""
        return TrainingRecipe(
            epochs=self.rounds,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            augment=False,
        )


class StudentSettings(Settings):
    """How students are trained, and how many of the best are kept."""

    recipe: TrainingRecipe = TrainingRecipe()
    """The training schedule of every student."""
    distillation: DistillationSettings = DistillationSettings(alpha=0.9)
    """What the dense network teaches them."""
    ease_in: CountOrNone = 15
    """Updates until being over the budget is punished in full (n2n_constrained)."""
    keep: CountOrNone = 5
    """How many of the best students are kept as checkpoints; that of the best plan always is."""
