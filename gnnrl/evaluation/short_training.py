"""Plans scored after a short training of the subnet."""

# N: reward images   M: training images

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gnnrl.data.images import Labelled
from gnnrl.evaluation.base import Decided, Evaluation, Evaluator, Plan
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.training_settings import ShortTraining
from gnnrl.pruning.sparsity import zero_masks
from gnnrl.runtime import generator
from gnnrl.training.distillation import Objective
from gnnrl.training.loop import train
from gnnrl.training.state import Diverged


class Trained(Evaluator):
    """Evaluates plans as `one_shot` does, after their subnets were trained; for any space.

    Every subnet starts from the network's own weights and sees the same images in the same order,
    so that equal plans get equal evaluations.  Batch norm has the running statistics of training.
    images `[N, C, H, W]`: the reward images of `one_shot`.  A backward pass costs two forward.
    """

    def __init__(
        self,
        one_shot: OneShot,
        images: Tensor,
        train_images: Labelled,
        settings: ShortTraining,
        seed: int = 0,
    ) -> None:
        self.graph, self._one_shot, self.images = one_shot.graph, one_shot, len(images)
        self._pixels, self._seed, self._recipe = images, seed, settings.recipe()
        order = torch.randperm(len(train_images), generator=generator(seed, "short training"))
        share = settings.share(len(train_images))
        self._train_images = train_images.take(order[:share].sort().values)
        trained = 3 * share * self._recipe.epochs
        self.cost = (trained + len(images)) / EQUIVALENT

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Evaluate plans one after the other."""
        return [self.evaluate(plan) for plan in plans]

    def failed(self, plan: Plan, reason: str) -> Evaluation:
        """Return the evaluation of a plan whose training diverged, or that gave no result."""
        return replace(self._one_shot.failed(plan, reason), cost=self.cost)

    def evaluate(self, plan: Plan) -> Evaluation:
        """Prune, train, score on the reward images; only a loss that diverges makes a bad plan."""
        decided = Decided.of(plan).plan
        subnet = self._one_shot.surgeon.cut(decided)
        try:
            train(
                subnet,
                self._train_images,
                self._recipe,
                seed=self._seed,
                objective=Objective(self._one_shot.task),
                zeros=zero_masks(
                    subnet, self.graph.input_shape, [decided.to_json()], self.graph.protected
                ),
            )
        except Diverged:
            return self.failed(plan, "diverged")
        with torch.no_grad():
            parts = self._pixels.split(self._recipe.batch_size)
            task = self._one_shot.task
            outputs = task.joined([task.outputs(subnet.eval(), part) for part in parts])
        return replace(self._one_shot.scored(plan, outputs), cost=self.cost)
