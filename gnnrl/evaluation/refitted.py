"""How good a plan is after the repair that `prune` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gnnrl.evaluation.base import Decided, Evaluation, Evaluator, Plan
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.pruning.compensation.gram import Solved
from gnnrl.pruning.compensation.sequential import Refit


class Refitted(Evaluator):
    """Scores repaired subnets on images `[N, C, H, W]`, with the reward of `scorer` on them.

    repair: on its calibration images; a plan is charged for what it takes of them, and for its
    share, as one of so many `plans`, of what the dense network takes.
    """

    def __init__(self, scorer: OneShot, images: Tensor, repair: Refit | Solved, plans: int) -> None:
        self.scorer, self.repair = scorer, repair
        self._parts = images.split(scorer.settings.batch_size)
        self.images = len(images)
        passed = len(images) + repair.each + repair.first / plans
        self.cost = passed / EQUIVALENT

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Repair and score plans one after the other."""
        return [self._evaluate(plan) for plan in plans]

    def _evaluate(self, plan: Plan) -> Evaluation:
        subnet = self.repair(Decided.of(plan).plan).eval()
        with torch.inference_mode():
            task = self.scorer.task
            outputs = task.joined([task.outputs(subnet, part) for part in self._parts])
        found = self.scorer.scored(plan, outputs)
        return replace(found, cost=self.cost)
