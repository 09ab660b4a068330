"""Plans scored after a short training of the subnet."""

# N: reward images   M: training images

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gnnrl.data.images import Labelled
from gnnrl.errors import UserError
from gnnrl.evaluation.base import EQUIVALENT, Evaluation
from gnnrl.evaluation.one_shot import Evaluator
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class ShortTraining:
    """How long, and how, a subnet is trained before it is scored.

    epochs: over the training images; less than one is that part of them.
    """

    epochs: float = 1.0
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise UserError(f"reward.training.epochs {self.epochs}: expected more than 0")

    @property
    def rounds(self) -> int:
        """Whole epochs of the part of the images that is trained on."""
        return max(1, math.ceil(self.epochs))

    def share(self, images: int) -> int:
        """How many of the training images one round goes over."""
        return max(1, round(images * self.epochs / self.rounds))

    def recipe(self) -> TrainingRecipe:
        """The course of training."""
        return TrainingRecipe(
            epochs=self.rounds,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
            schedule="constant",
            augment=False,
        )


class Trained:
    """Evaluates plans as `evaluator` does, after their subnets were trained; for any space.

    Every subnet starts from the network's own weights and sees the same images in the same order,
    so that equal plans get equal evaluations.  Batch norm has the statistics that training left.
    images [N, C, H, W]: the reward images of the evaluator.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        network: nn.Module,
        images: Tensor,
        train_images: Labelled,
        settings: ShortTraining,
        seed: int = 0,
    ) -> None:
        self.graph, self._evaluator = evaluator.graph, evaluator
        self._surgeon = Surgeon(network.eval(), evaluator.graph)
        self._images, self._seed, self._recipe = images, seed, settings.recipe()
        order = torch.randperm(len(train_images), generator=generator(seed, "short training"))
        share = settings.share(len(train_images))
        self._train_images = train_images.take(order[:share].sort().values)

    @property
    def cost(self) -> float:
        """Evaluation equivalents of one evaluation; a backward pass counts as two forward."""
        trained = 3 * len(self._train_images) * self._recipe.epochs
        return (trained + len(self._images)) / EQUIVALENT

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Evaluation]:
        """Evaluate plans one after the other."""
        return [self.evaluate(plan) for plan in plans]

    def failed(self, plan: PruningPlan, reason: str) -> Evaluation:
        """The evaluation of a plan that gave none."""
        return replace(self._evaluator.failed(plan, reason), cost=self.cost)

    def evaluate(self, plan: PruningPlan) -> Evaluation:
        """Cut, train, look at the reward images."""
        subnet = self._surgeon.cut(plan)
        try:
            train(subnet, self._train_images, self._recipe, seed=self._seed)
        except UserError as error:  # diverged: a bad plan, not a bad input
            logits = torch.full((len(self._images), 1), torch.nan)
            status = "diverged" if "diverged" in str(error) else "not trained"
            return replace(self._evaluator.rated(plan, logits), status=status, cost=self.cost)
        with torch.no_grad():
            parts = self._images.split(self._recipe.batch_size)
            logits = torch.cat([subnet.eval()(part) for part in parts]).float()
        return replace(self._evaluator.rated(plan, logits), cost=self.cost)
