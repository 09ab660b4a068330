"""A student learns from a teacher's logits beside the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """

    teacher: nn.Module
    alpha: float = 0.9
    temperature: float = 4.0
    kind: str = "kl"

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

    def loss(self, student: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
        """Mix what the teacher asks for with `hard`, the loss on the labels; logits [B, K]."""
        soft = KINDS[self.kind](student, teacher, self.temperature)
        return self.alpha * soft + (1 - self.alpha) * hard
