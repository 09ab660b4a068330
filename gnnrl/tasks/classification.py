"""Classification: one class for each image."""

# N: images   B: images of a batch   K: classes

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.tasks.base import Counts, Meter, Network, Task
from gnnrl.tasks.comparing import KINDS, divergences


class Classification(Task):
    """Logits `[B, K]` and classes `[B]`; the metric is the accuracy.

    best: an image counts as right if its class is among so many of the largest logits.
    """

    targets = "classes"

    def __init__(self, best: int = 1) -> None:
        self.best = best
        self.metric = "accuracy" if best == 1 else f"top{best}_accuracy"

    def outputs(self, network: Network, images: Tensor) -> Tensor:
        """Return the logits `[B, K]`."""
        return _logits(network(images))

    def training_loss(
        self, network: Network, images: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy, and the logits `[B, K]`."""
        logits = _logits(network(images))
        return F.cross_entropy(logits, targets, label_smoothing=smoothing), logits

    def distance(self, student: Tensor, teacher: Tensor, kind: str, temperature: float) -> Tensor:
        """Compare logits `[B, K]` by a member of KINDS."""
        return KINDS[kind](student, teacher, temperature)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every image `[N]`, in float64."""
        return F.cross_entropy(outputs.double(), targets, reduction="none")

    def loss(self, outputs: Tensor, targets: Tensor) -> float:
        """Return the mean cross-entropy."""
        return float(F.cross_entropy(outputs.double(), targets))

    def divergences(self, outputs: Tensor, dense: Tensor) -> Mapping[str, float]:
        """Compare logits `[N, K]`, image by image."""
        return divergences(outputs, dense)

    def meter(self) -> Meter:
        """Return a meter of the fraction of images whose class has one of the largest logits."""
        return Counts(self._right, lambda total: float(total[0] / total[1]))

    def _right(self, logits: Tensor, classes: Tensor, dense: Any) -> Tensor:
        if self.best == 1:
            right = (logits.argmax(1) == classes).sum()
        else:
            largest = logits.topk(min(self.best, logits.shape[1]), dim=1).indices
            right = (largest == classes[:, None]).sum()
        return torch.stack([right, torch.full_like(right, len(classes))])


def top5() -> Classification:
    """Return the task in which any of the five largest logits may be right."""
    return Classification(best=5)


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        return outputs
    got = (
        f"a tensor of shape {list(outputs.shape)}"
        if isinstance(outputs, Tensor)
        else type(outputs).__name__
    )
    raise UserError(
        f"the task classification takes logits [images, classes], the network gives {got}: set "
        "task.name to segmentation, detection, outputs or a task of your own"
    )


CLASSIFICATION = Classification()
"""The task that is meant where none is named."""
