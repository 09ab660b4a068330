"""A student learns from a teacher's logits in addition to the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.training.recipe import DistillationSettings

# B: images   K: classes


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the divergence of softened outputs (Hinton et al. 2015); logits [B, K]."""
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def mse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of softened outputs, as the SageMaker example has it."""
    return F.mse_loss((student / temperature).softmax(1), (teacher / temperature).softmax(1))


KINDS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {"kl": kl, "mse": mse}


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

    def loss(self, student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
        """Mix what the teacher asks for with `hard`, the loss on the labels; logits [B, K]."""
        how = self.settings
        soft = KINDS[how.kind](student, teacher, how.temperature)
        if how.weight is not None:
            return hard + how.weight * soft
        return how.alpha * soft + (1 - how.alpha) * hard


class Remembered(nn.Module):
    """A teacher that keeps its logits for every batch and computes none twice.

    Students that are trained on the same images in the same order, augmented alike, then cost one
    forward pass of the teacher together.  capacity: batches that are kept at most.
    """

    def __init__(self, teacher: nn.Module, capacity: int) -> None:
        super().__init__()
        self.teacher, self.capacity = teacher, capacity
        self._answers: dict[tuple[bytes, torch.dtype | None], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> the teacher's logits [B, K]."""
        lower = (
            torch.get_autocast_dtype(x.device.type)
            if torch.is_autocast_enabled(x.device.type)
            else None
        )
        key = hashlib.blake2b(x.detach().contiguous().cpu().numpy().tobytes()).digest(), lower
        if key in self._answers:
            return self._answers[key]
        answer = self.teacher(x).detach()
        if len(self._answers) < self.capacity:
            self._answers[key] = answer
        return answer

    def __len__(self) -> int:
        """Return how many batches are remembered."""
        return len(self._answers)
