"""A student learns from a teacher's logits beside the labels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.errors import UserError

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


@dataclass(frozen=True, eq=False)
class Distillation:
    """What a student is told beside the labels.

    alpha: share of the teacher in the loss, [0, 1]; the labels have the rest.
    temperature: how far outputs are softened, above 0.
    kind: a key of KINDS.
    weight: instead of alpha, what the teacher counts beside the labels, whose loss counts in full.
    """

    teacher: nn.Module
    alpha: float = 0.9
    temperature: float = 4.0
    kind: str = "kl"
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(
                f"the kind of distillation is {self.kind!r}, expected one of {', '.join(KINDS)}"
            )
        if not 0 <= self.alpha <= 1 or self.temperature <= 0:
            raise UserError(
                "distillation needs alpha in [0, 1] and a temperature above 0, got "
                f"alpha {self.alpha} and temperature {self.temperature}"
            )
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise UserError(f"the weight of distillation is {self.weight}, expected 0 or more")

    @property
    def active(self) -> bool:
        """Whether the teacher counts at all."""
        return bool(self.alpha if self.weight is None else self.weight)

    def loss(self, student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
        """Mix what the teacher asks for with `hard`, the loss on the labels; logits [B, K]."""
        soft = KINDS[self.kind](student, teacher, self.temperature)
        if self.weight is not None:
            return hard + self.weight * soft
        return self.alpha * soft + (1 - self.alpha) * hard


class Remembered(nn.Module):
    """A teacher that is asked the same again and again: it answers from memory.

    Students that are trained on the same images in the same order, changed alike, then cost one
    teacher's look at them together.  capacity: batches that are remembered at most.
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
