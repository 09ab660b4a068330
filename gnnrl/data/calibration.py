"""A few training images: for calibration passes, rescoring and gradients before training."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl.data.images import Labelled
from gnnrl.data.targets import Targets, joined
from gnnrl.runtime import generator

BATCH_SIZE = 256


def calibration_images(images: Labelled, count: int, seed: int, device: torch.device) -> Tensor:
    """Return `count` normalised images on the device, `[count, C, H, W]`, drawn by the seed.

    All images where there are not more; an empty tensor for a count of 0.
    """
    if count == 0:
        return torch.empty(0, device=device)
    return _taken(images, _order(images, seed, "calibration images")[:count], device)[0]


def labelled_images(
    images: Labelled, count: int, seed: int, device: torch.device
) -> tuple[Tensor, Targets]:
    """Return `count` normalised images `[count, C, H, W]` with their labels, drawn by the seed."""
    return _taken(images, _order(images, seed, "rescoring images")[:count], device)


def labelled_examples(
    images: Labelled, seed: int, device: torch.device, per_class: int = 10
) -> tuple[Tensor, Targets]:
    """Return `per_class` normalised images of every class with their labels, drawn by the seed.

    Images with masks or boxes are of several classes: ten times as many, of all.
    """
    order = _order(images, seed, "labelled examples")
    if not isinstance(images.labels, Tensor) or images.labels.ndim > 1:
        return _taken(images, order[: 10 * per_class], device)
    labels = images.labels.cpu()[order]
    chosen = [order[labels == label][:per_class] for label in labels.unique().tolist()]
    return _taken(images, torch.cat(chosen), device)


def _order(images: Labelled, seed: int, purpose: str) -> Tensor:
    return torch.randperm(len(images), generator=generator(seed, purpose))


def _taken(images: Labelled, chosen: Tensor, device: torch.device) -> tuple[Tensor, Targets]:
    batches = images.take(chosen.sort().values).batches(BATCH_SIZE, device)
    pixels, labels = zip(*batches, strict=True)
    return torch.cat(pixels), joined(labels)


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images `[n, C, H, W]`, a random half of them mirrored left to right.

    For the calibration of a network that was trained with mirrored images.
    """
    mirror = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirror.to(images.device)[:, None, None, None], images.flip(3), images)
