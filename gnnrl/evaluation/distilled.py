"""Plans scored by what their subnets learn: pruned, trained shortly with a teacher, measured.

As in N2N (Ashok et al. 2018) and SageMaker's example of it, a student inherits the weights of what
remains.  All students see the same images in the same order, changed alike, and the dense network
is their teacher: its output is computed once.  So equal plans get equal evaluations, in any order
and in any process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gnnrl.data.images import Labelled, batch_count
from gnnrl.errors import UserError, first_line, out_of_memory
from gnnrl.evaluation.base import Decided, Evaluation, Evaluator, Plan
from gnnrl.evaluation.budget_penalty import PUNISHED, Constraint
from gnnrl.evaluation.measured import measured, metric
from gnnrl.evaluation.rewards import CONSTRAINED, RewardSettings, n2n, sagemaker
from gnnrl.evaluation.student_store import StudentStore, folder_of
from gnnrl.evaluation.training_settings import StudentSettings
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost, cost
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.sparsity import zero_masks
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device
from gnnrl.tasks.base import Outputs, Targets, Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.training.distillation import Distillation, Objective, Remembered
from gnnrl.training.loop import train
from gnnrl.training.state import Diverged


class Students(Evaluator):
    """Evaluates plans of one network by training their subnets; can be sent to other processes.

    reward.kind: A and A_teacher are measured on the reward images.  For `n2n_constrained` a student
    over the `budget`, or less accurate than `reward.at_least`, gets PUNISHED, eased in over
    `settings.ease_in` updates of the agent.
    store: where the best students are kept.
    """

    def __init__(
        self,
        surgeon: Surgeon,
        train_images: Labelled,
        reward_images: Labelled,
        settings: StudentSettings,
        reward: RewardSettings,
        *,
        budget: Budget | None = None,
        store: StudentStore | None = None,
        seed: int = 0,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.network, self.graph = surgeon.network.eval(), surgeon.graph
        self.settings, self.reward = settings, reward
        self.budget, self.store = budget or Budget(parameters=1.0), store
        self._train_images, self._reward_images, self._seed = train_images, reward_images, seed
        self.images, self.task = len(reward_images), task
        self._surgeon: Surgeon | None = surgeon
        self._dense = cost(surgeon.graph)
        self._teacher: _Teacher | None = None
        self._compresses = reward.function in (n2n, sagemaker)

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Train and measure a student for each plan, one after the other."""
        return [self.evaluate(plan) for plan in plans]

    def evaluate(self, plan: Plan) -> Evaluation:
        """Prune, train, score on the reward images; a failed student is PUNISHED, with a reason.

        Raises `UserError` where the images cannot be read or the settings do not fit.
        """
        plan = Decided.of(plan).plan
        try:
            if self._compresses and cost(self.graph, plan).parameters >= self._dense.parameters:
                return self.failed(plan, "not smaller")
            student = self._read().cut(plan)
        except (UserError, RuntimeError, TypeError) as error:
            return self.failed(plan, _reason("cannot be built", error))
        try:
            self._train(student, plan)
            outputs = self.outputs(student)
        except Diverged:
            return self.failed(plan, "diverged")
        except UserError:  # of the input, not of this plan
            raise
        except (ValueError, RuntimeError, TypeError, IndexError, MemoryError) as error:
            if out_of_memory(error):
                return self.failed(plan, "out of memory")
            return self.failed(plan, _reason("cannot be trained", error))
        if not self.task.finite(outputs):
            return self.failed(plan, "not finite")
        return self.scored(plan, student, outputs)

    def taught(self, plan: PruningPlan) -> nn.Module:
        """Return the student of a plan, trained."""
        student = self._read().cut(plan)
        self._train(student, plan)
        return student

    def hold(self, plan: PruningPlan, reward: float) -> None:
        """Keep the student of a plan, also where others are better.

        One that was removed for them is trained again, which gives the same student.
        """
        if self.store is None or folder_of(plan.digest) in self.store.names() or reward == PUNISHED:
            return
        checkpoint = self.store.dense.following(self.taught(plan), plan, self.graph)
        self.store.put(plan.digest, reward, checkpoint)

    def failed(self, plan: Plan, reason: str) -> Evaluation:
        """Return the evaluation of a plan whose student failed."""
        student = self._cost(Decided.of(plan).plan)
        factor = self._dense.parameters / max(student.parameters, 1)
        details = {"x_factor": factor, "dir": ""}
        return Evaluation(PUNISHED, 0.0, student.flops, student.parameters, reason, details=details)

    def shaped_reward(self, evaluation: Evaluation, updates: int) -> float:
        """Return the reward, for a student over the budget eased in as in N2N."""
        constraint = self._taught_by().constraint
        return constraint.relaxed(evaluation, updates) if constraint else evaluation.reward

    def _train(self, student: nn.Module, plan: PruningPlan) -> None:
        teacher = self._taught_by().network
        distillation = Distillation(teacher, settings=self.settings.distillation)
        zeros = zero_masks(student, self.graph.input_shape, [plan.to_json()], self.graph.protected)
        train(
            student,
            self._train_images,
            self.settings.recipe,
            seed=self._seed,
            objective=Objective(self.task, distillation),
            zeros=zeros,
        )
        student.eval()

    @torch.no_grad()
    def outputs(self, network: nn.Module) -> Outputs:
        """Return the outputs of a network on the reward images, as the task reads them."""
        parts = self._reward_images.batches(self.reward.batch_size, device())
        return self.task.joined([self.task.outputs(network, x) for x, _ in parts])

    def scored(self, plan: PruningPlan, student: nn.Module, outputs: Outputs) -> Evaluation:
        """Return the evaluation of a student with these outputs on the reward images."""
        teacher, size = self._taught_by(), self._cost(plan)
        found = measured(outputs, teacher.outputs, teacher.labels, size, self._dense, self.task)
        reward, status = float(self.reward.function(found)), "ok"
        if not math.isfinite(reward):
            return self.failed(plan, f"its reward is {reward}")
        if teacher.constraint is not None:
            broken = teacher.constraint.broken(size, found.accuracy)
            reward, status = (PUNISHED, broken) if broken else (reward, status)
        kept = ""
        if self.store is not None and status == "ok":
            checkpoint = self.store.dense.following(student, plan, self.graph)
            kept = self.store.add(plan.digest, reward, checkpoint)
        details = {"x_factor": 1.0 / found.parameters_kept, "dir": kept}
        return Evaluation(
            reward, found.accuracy, size.flops, size.parameters, status, details=details
        )

    def _cost(self, plan: PruningPlan) -> Cost:
        try:
            return cost(self.graph, plan)
        except UserError:  # a plan of another network
            return self._dense

    def _read(self) -> Surgeon:
        """Return the network traced, which every process does for itself."""
        if self._surgeon is None:
            self._surgeon = Surgeon(self.network.to(device()).eval(), self.graph)
        return self._surgeon

    def _taught_by(self) -> _Teacher:
        """Return the teacher, which every process asks for itself."""
        if self._teacher is None:
            self._teacher = _Teacher.of(self)
        return self._teacher

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_surgeon": None, "_teacher": None}


@dataclass(frozen=True)
class _Teacher:
    """What is computed once: the teacher's memory, and its outputs on the reward images."""

    network: Remembered
    outputs: Outputs
    labels: Targets
    constraint: Constraint | None

    @classmethod
    def of(cls, students: Students) -> _Teacher:
        network, recipe = students.network.to(device()).eval(), students.settings.recipe
        batches = batch_count(len(students._train_images), recipe.batch_size) * recipe.epochs
        outputs, labels = students.outputs(network), students._reward_images.labels.to(device())
        constraint = None
        if students.reward.kind == CONSTRAINED:
            ease_in = students.settings.ease_in
            right = metric(outputs, labels, outputs, students.task)
            asked, least = (students.budget, students._dense), students.reward.at_least
            constraint = Constraint(*asked, ease_in, right, least or 0.0)
        return cls(Remembered(network, batches), outputs, labels, constraint)


def _reason(what: str, error: Exception) -> str:
    """Return the first line of an error, in a few words."""
    return f"{what}: {first_line(error)}"[:160]
