"""A few training images: for batch-norm statistics, without labels, or for first gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl.data.images import Labelled
from gnnrl.runtime import generator

BATCH_SIZE = 256


def calibration_images(images: Labelled, count: int, seed: int, device: torch.device) -> Tensor:
    """Return `count` normalised images on the device, [count, C, H, W], drawn by the seed.

    All of them where there are not more; none for a count of 0.
    """
    order = torch.randperm(len(images), generator=generator(seed, "calibration images"))
    if count == 0:
        return torch.empty(0, device=device)
    chosen = images.take(order[:count].sort().values)
    return torch.cat([x for x, _ in chosen.batches(BATCH_SIZE, device)])


def labelled_images(
    images: Labelled, count: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `count` normalised images [count, C, H, W] with labels [count], drawn by the seed."""
    order = torch.randperm(len(images), generator=generator(seed, "rescoring images"))
    chosen = images.take(order[:count].sort().values)
    pixels, labels = zip(*chosen.batches(BATCH_SIZE, device), strict=True)
    return torch.cat(pixels), torch.cat(labels)


def labelled_examples(
    images: Labelled, seed: int, device: torch.device, per_class: int = 10
) -> tuple[Tensor, Tensor]:
    """Return `per_class` normalised images of every class with their labels, drawn by the seed."""
    order = torch.randperm(len(images), generator=generator(seed, "labelled examples"))
    labels = images.labels.cpu()[order]
    chosen = [order[labels == label][:per_class] for label in labels.unique().tolist()]
    taken = images.take(torch.cat(chosen).sort().values)
    x, y = zip(*taken.batches(BATCH_SIZE, device), strict=True)
    return torch.cat(x), torch.cat(y)


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images `[n, C, H, W]` with half of them, drawn at random, mirrored left to right.

    For a network that was trained with mirrored images: more to see in the same number.
    """
    mirror = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirror.to(images.device)[:, None, None, None], images.flip(3), images)
