"""Segmentation: one class for each pixel."""

# B: images   K: classes   H, W: height, width

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gnnrl.data.targets import IGNORED
from gnnrl.errors import UserError
from gnnrl.tasks.base import Counts, Meter, Network, Task
from gnnrl.tasks.comparing import KINDS, by_pixel, maps

AUXILIARY = 0.5  # weight of the loss of an auxiliary head, as in torchvision's reference training


class Segmentation(Task):
    """Logits `[B, K, H, W]`, alone or as `out` of a mapping, and masks `[B, H, W]`; pixels of class
    255 count for nothing; the metric is the mean intersection over union.

    What a network gives as `aux` is trained, too, and left out of everything else.
    """

    metric = "mean_iou"
    targets = "masks"

    def outputs(self, network: Network, images: Tensor) -> Tensor:
        """Return the logits `[B, K, H, W]`."""
        return _logits(network(images), images)[0]

    def training_loss(
        self, network: Network, images: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of pixels, half of that of `aux` added; and the logits."""
        logits, auxiliary = _logits(network(images), images)
        loss = _cross_entropy(logits, targets, smoothing)
        if auxiliary is not None:
            loss = loss + AUXILIARY * _cross_entropy(auxiliary, targets, smoothing)
        return loss, logits

    def distance(self, student: Tensor, teacher: Tensor, kind: str, temperature: float) -> Tensor:
        """Compare logits `[B, K, H, W]` pixel by pixel by a member of KINDS."""
        return KINDS[kind](by_pixel(student), by_pixel(teacher), temperature)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of every image `[N]`; 0 for one of ignored pixels only."""
        pixels = F.cross_entropy(outputs, targets.long(), ignore_index=IGNORED, reduction="none")
        return pixels.sum((1, 2)) / (targets != IGNORED).sum((1, 2)).clamp(min=1)

    def divergences(self, outputs: Tensor, dense: Tensor) -> Mapping[str, float]:
        """Compare logits `[N, K, H, W]`: the first two pixel by pixel, the others as a whole."""
        return maps(outputs, dense)

    def meter(self) -> Meter:
        """Return a meter of the mean over classes, those that occur, of the intersection over
        union of the pixels that are and those that are said to be of the class."""
        return Counts(_confusion, mean_iou)


def _confusion(logits: Tensor, masks: Tensor, dense: Any) -> Tensor:
    """Count pixels by their class and the class with the largest logit `[K, K]`."""
    classes, said, known = logits.shape[1], logits.argmax(1), masks != IGNORED
    pairs = masks[known].long() * classes + said[known]
    return pairs.bincount(minlength=classes**2).view(classes, classes)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean intersection over union of classes by counts of pixels `[K, K]`.

    A class that neither is in a mask nor is said of a pixel is left out.
    """
    right = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - right
    return float((right / union)[union > 0].mean())


def _cross_entropy(logits: Tensor, masks: Tensor, smoothing: float) -> Tensor:
    total = F.cross_entropy(
        logits, masks.long(), ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
    )
    return total / (masks != IGNORED).sum().clamp(min=1)


def _logits(outputs: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what a network gives as logits and, where it gives them, those of its second head."""
    found, second = outputs, None
    if isinstance(outputs, Mapping) and "out" in outputs:
        found, second = outputs["out"], outputs.get("aux")
    if isinstance(found, Tensor) and found.ndim == 4 and found.shape[2:] == images.shape[2:]:
        return found, second
    if isinstance(found, Tensor):
        got = f"a tensor of shape {list(found.shape)} for images of {list(images.shape)}"
    else:
        got = type(found).__name__
    raise UserError(
        "the task segmentation takes logits [images, classes, height, width] of the images' height "
        f"and width, alone or as 'out' of a dict, the network gives {got}: change it, or set "
        "task.name to classification, outputs or a task of your own"
    )
