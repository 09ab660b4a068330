"""Plans scored by what their subnets learn: cut, trained shortly with a teacher, measured.

As in N2N (Ashok et al. 2018) and SageMaker's example of it, a student inherits the weights of what
remains.  All students see the same images in the same order, changed alike, and the dense network
is their teacher: what it says to them is computed once.  So equal plans get equal evaluations, in
any order and in any process.
"""

# N: reward images   K: classes

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.data.images import Labelled, batch_count
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.evaluation.budget_penalty import OVER, Constraint
from gnnrl.evaluation.rewards import REWARDS, measured, n2n, sagemaker
from gnnrl.evaluation.student_settings import Schooling
from gnnrl.evaluation.student_store import Gallery
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.sparsity import zero_masks
from gnnrl.pruning.surgery import Surgeon
from gnnrl.registry import named
from gnnrl.runtime import device
from gnnrl.training.distillation import Distillation, Remembered
from gnnrl.training.loop import train
from gnnrl.training.state import Diverged

FAILED = -1.0
"""Reward of a student that cannot be built or trained, and, where compression is rewarded, of one
that is not smaller than its teacher."""

CONSTRAINED = "n2n_constrained"


class Students:
    """Evaluates plans of one network by training their subnets; can be sent to other processes.

    reward: a key of `REWARDS`, or `package.module:function`, called with `Measured`; A and
    A_teacher are measured on the reward images.  For `n2n_constrained` a student that is over the
    budget gets FAILED.  dense: the network as a checkpoint, so that students can be kept in
    `gallery`.  One student is one evaluation.
    """

    cost = 1.0

    def __init__(
        self,
        network: nn.Module,
        graph: ComputationalGraph,
        train_images: Labelled,
        reward_images: Labelled,
        schooling: Schooling,
        *,
        reward: str = "n2n",
        budget: Budget | None = None,
        dense: Checkpoint | None = None,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        self.network, self.graph, self.dense = network.eval(), graph, dense
        self.schooling, self.reward = schooling, reward
        self.budget = budget or Budget(parameters=1.0)
        self.gallery: Gallery | None = None
        self._train, self._reward_images = train_images, reward_images
        self._batch_size, self._seed = batch_size, seed
        self._whole = cost(graph)
        named(reward, REWARDS, "reward")
        self._tools: _Tools | None = None

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Evaluation]:
        """Train and measure a student for each plan, one after the other."""
        return [self.evaluate(plan) for plan in plans]

    def evaluate(self, plan: PruningPlan) -> Evaluation:
        """Cut, train, look at the reward images; whatever goes wrong is FAILED with the reason."""
        self._ready()
        try:
            price = cost(self.graph, plan)
        except UserError as error:
            return self.failed(plan, _reason(ValueError(f"cannot be built: {error}")))
        if self._compresses() and price.parameters >= self._whole.parameters:
            return self.failed(plan, "not smaller")
        try:
            student = self.taught(plan)
            logits = _logits(student, self._reward_images, self._batch_size)
        except (MemoryError, torch.OutOfMemoryError):
            return self.failed(plan, "out of memory")
        except Diverged:
            return self.failed(plan, "diverged")
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            return self.failed(plan, _reason(error))
        if not torch.isfinite(logits).all():
            return self.failed(plan, "not finite")
        return self.rated(plan, student, logits)

    def keep_in(self, folder: Path) -> None:
        """Keep the best students below a folder, if any are to be kept."""
        if self.schooling.keep:
            self.gallery = Gallery(folder, self.schooling.keep)

    def taught(self, plan: PruningPlan) -> nn.Module:
        """The student of a plan, trained."""
        tools, schooling = self._ready(), self.schooling
        try:
            student = tools.surgeon.cut(plan)
        except (UserError, RuntimeError, TypeError) as error:
            raise ValueError(f"cannot be built: {error}") from error
        distillation = Distillation(
            tools.teacher,
            schooling.alpha,
            schooling.temperature,
            schooling.kind,
            schooling.weight,
        )
        train(
            student,
            self._train,
            schooling.recipe,
            seed=self._seed,
            distillation=distillation if distillation.active else None,
            zeros=zero_masks(
                student, self.graph.input_shape, [plan.to_json()], self.graph.protected
            ),
        )
        return student.eval()

    def failed(self, plan: PruningPlan, reason: str) -> Evaluation:
        """The evaluation of a plan whose student came to nothing."""
        price = self._price(plan)
        factor = self._whole.parameters / max(price.parameters, 1)
        return Evaluation(
            FAILED, 0.0, price.flops, price.parameters, status=reason, x_factor=factor
        )

    @property
    def constraint(self) -> Constraint | None:
        """What the agent is eased into; None where nothing is punished."""
        return self._ready().constraint if self.reward == CONSTRAINED else None

    def rated(self, plan: PruningPlan, student: nn.Module, logits: Tensor) -> Evaluation:
        """The evaluation of a student whose logits `[N, K]` on the reward images are known."""
        tools, price = self._ready(), self._price(plan)
        found = measured(logits, tools.logits, tools.labels, price, self._whole)
        reward, status = float(self._function()(found)), "ok"
        if not math.isfinite(reward):
            return self.failed(plan, f"its reward is {reward}")
        if tools.constraint is not None and tools.constraint.broken(price):
            reward, status = FAILED, OVER
        kept = ""
        if self.gallery is not None and self.dense is not None and status == "ok":
            checkpoint = self.dense.following(student, plan)
            kept = self.gallery.add(plan.digest, reward, checkpoint)
        return Evaluation(
            reward,
            found.accuracy,
            price.flops,
            price.parameters,
            status,
            x_factor=1.0 / found.parameters_kept,
            dir=kept,
        )

    def _price(self, plan: PruningPlan) -> Cost:
        try:
            return cost(self.graph, plan)
        except UserError:  # a plan of another network
            return self._whole

    def _function(self) -> Callable[[Any], float]:
        return named(self.reward, REWARDS, "reward")

    def _compresses(self) -> bool:
        return self._function() in (n2n, sagemaker)

    def _ready(self) -> _Tools:
        """What every process makes for itself."""
        if self._tools is None:
            self._tools = _Tools.of(self)
        return self._tools

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tools": None}


@dataclass(frozen=True)
class _Tools:
    """What is computed once: the network read, the teacher's memory, what it says of rewards."""

    surgeon: Surgeon
    teacher: Remembered
    logits: Tensor
    labels: Tensor
    constraint: Constraint | None

    @classmethod
    def of(cls, students: Students) -> _Tools:
        network, recipe = students.network.to(device()).eval(), students.schooling.recipe
        batches = batch_count(len(students._train), recipe.batch_size) * recipe.epochs
        logits = _logits(network, students._reward_images, students._batch_size)
        labels = students._reward_images.labels.to(logits.device)
        right = float((logits.argmax(1) == labels).double().mean())
        constraint = None
        if students.reward == CONSTRAINED:
            ease_in = students.schooling.ease_in
            constraint = Constraint(students.budget, students._whole, ease_in, right)
        surgeon = Surgeon(network, students.graph)
        return cls(surgeon, Remembered(network, batches), logits, labels, constraint)


@torch.no_grad()
def _logits(network: nn.Module, images: Labelled, batch_size: int) -> Tensor:
    """What a network says of all images `[N, K]`."""
    parts = images.batches(batch_size, device())
    return torch.cat([network(x).float() for x, _ in parts])


def _reason(error: Exception) -> str:
    """An error in a few words; memory that ran out goes by several names."""
    line = (str(error).splitlines() or [""])[0]
    if "memory" in str(error):
        return "out of memory"
    said = line if line.startswith("cannot be built") else f"cannot be trained: {line}"
    return said[:160]
