"""What a network is trained for: the loss of its task, and what a teacher adds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.tasks.base import Network, Outputs, Targets, Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.training.recipe import DistillationSettings

# B: images


class Distillation:
    """A teacher, and what it adds to the labels.

    settings, values: `DistillationSettings`, or its fields.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *values: Any,
        settings: DistillationSettings | None = None,
        **named: Any,
    ) -> None:
        self.teacher = teacher
        self.settings = settings or DistillationSettings(*values, **named)

    @property
    def active(self) -> bool:
        """Whether the teacher counts at all."""
        how = self.settings
        return bool(how.alpha if how.weight is None else how.weight)

    def loss(
        self, student: Outputs, teacher: Outputs, hard: Tensor, task: Task = CLASSIFICATION
    ) -> Tensor:
        """Mix what the teacher asks for, by both outputs, with `hard`, the loss on the labels."""
        how = self.settings
        soft = task.distance(student, teacher, how.kind, how.temperature)
        if how.weight is not None:
            return hard + how.weight * soft
        return how.alpha * soft + (1 - how.alpha) * hard


@dataclass(frozen=True)
class Objective:
    """The task of a network, and its teacher; an inactive one counts as none."""

    task: Task = CLASSIFICATION
    distillation: Distillation | None = None

    @property
    def teacher(self) -> Distillation | None:
        """The distillation, where it counts."""
        found = self.distillation
        return found if found is not None and found.active else None

    def refuse_impossible(self) -> None:
        """Raise `UserError` where there is nothing to learn from, or no way to learn from it."""
        if self.teacher is None and not self.task.labelled:
            raise UserError(
                "the task has no labels, so that only a teacher can train a network on it: set "
                "distillation.alpha to 1, or the recipe's epochs to 0"
            )
        if self.teacher is not None and not self.task.distils:
            raise UserError(
                "the task has no distillation: set distillation.alpha to 0 and distillation.weight "
                "to null"
            )

    def loss(
        self, network: Network, images: Tensor, targets: Targets, smoothing: float
    ) -> tuple[Tensor, Outputs, Outputs]:
        """Run a network in training mode; return its loss, its outputs and those of the teacher.

        smoothing: of labels.  Outputs are None where there are none.
        """
        loss, outputs = self.task.training_loss(network, images, targets, smoothing)
        if self.teacher is None:
            return loss, outputs, None
        with torch.no_grad():
            answer = self.task.outputs(self.teacher.teacher, images)
        return self.teacher.loss(outputs, answer, loss, self.task), outputs, answer


class Remembered(nn.Module):
    """A teacher that keeps its outputs for every batch and computes none twice.

    Students that are trained on the same images in the same order, augmented alike, then cost one
    forward pass of the teacher together.  capacity: batches that are kept at most.
    """

    def __init__(self, teacher: nn.Module, capacity: int) -> None:
        super().__init__()
        self.teacher, self.capacity = teacher, capacity
        self._answers: dict[tuple[bytes, torch.dtype | None], Any] = {}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        """Images [B, C, H, W] -> what the teacher gives for them."""
        lower = (
            torch.get_autocast_dtype(x.device.type)
            if torch.is_autocast_enabled(x.device.type)
            else None
        )
        key = hashlib.blake2b(x.detach().contiguous().cpu().numpy().tobytes()).digest(), lower
        if key in self._answers:
            return self._answers[key]
        answer = self.teacher(x)
        if len(self._answers) < self.capacity:
            self._answers[key] = answer
        return answer

    def __len__(self) -> int:
        """Return how many batches are remembered."""
        return len(self._answers)
