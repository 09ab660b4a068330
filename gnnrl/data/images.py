"""Labelled images, served in batches."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor

from gnnrl.data.augmentations import Augmentation
from gnnrl.data.targets import Boxes, Targets, digest
from gnnrl.data.transform import Transform, augmented, augmented_with_masks
from gnnrl.shapes import Shape

# N: images   B: images of a batch   C: channels   H, W: height, width

Batch: TypeAlias = tuple[Tensor, Any]  # images, normalised, float32 [B, C, H, W]; their targets
Read: TypeAlias = Iterator[tuple[Tensor, Targets, Augmentation]]


class Labelled(ABC):
    """Labelled images, held in memory or on disk.

    labels: classes `[N]`, whole numbers from 0; or masks `[N, H, W]`, uint8; or boxes.
    transform: how pixels become a network's input.
    """

    labels: Targets
    transform: Transform

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """Channels, height, width of one image."""

    @abstractmethod
    def take(self, indices: Tensor) -> Labelled:
        """Return these images only, in this order."""

    def to(self, device: torch.device) -> Labelled:
        """Return the same images, held on the device if they are held in memory."""
        return self

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest that changes with the images, their labels and their transform."""

    @abstractmethod
    def _read(self, order: list[Tensor], how: Augmentation, draw: Generator | None) -> Read:
        """Yield pixels uint8 `[B, C, H, W]`, their labels and what is still to be augmented."""

    def batches(
        self,
        batch_size: int,
        device: torch.device | None = None,
        generator: Generator | None = None,
        *,
        augment: bool = False,
    ) -> Iterator[Batch]:
        """Serve every image once, in a random order if there is a generator.

        augment: change the images at random as the data set has it; needs a generator.
        """
        how = self.transform.augmentation_if(augment and generator is not None)
        order = chosen_indices(len(self), batch_size, generator)
        for pixels, labels, rest in self._read(order, how, generator):
            pixels = pixels.to(device)
            if generator is not None:
                pixels, labels = _augmented(pixels, labels, rest, generator)
            yield self.transform.normalised(pixels), labels.to(device)


@dataclass(frozen=True, eq=False)
class Images(Labelled):
    """Images in memory.  pixels: uint8 `[N, C, H, W]`."""

    pixels: Tensor
    labels: Targets
    transform: Transform

    @property
    def input_shape(self) -> Shape:
        """Channels, height, width of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def take(self, indices: Tensor) -> Images:
        """Return these images only, in this order."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def to(self, device: torch.device) -> Images:
        """Return the same images, held on the device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def fingerprint(self) -> str:
        """Return a digest of pixels, labels and transform."""
        found = hashlib.sha256(repr(self.transform).encode())
        found.update(self.pixels.contiguous().cpu().numpy().tobytes())
        found.update(digest(self.labels))
        return found.hexdigest()[:20]

    def _read(self, order: list[Tensor], how: Augmentation, draw: Generator | None) -> Read:
        for indices in order:
            here = indices.to(self.pixels.device)
            yield self.pixels[here], self.labels[here], how


def _augmented(
    pixels: Tensor, labels: Targets, how: Augmentation, generator: Generator
) -> tuple[Tensor, Targets]:
    """Change pixels at random, and masks with them."""
    if isinstance(labels, Boxes) or labels.ndim == 1:
        return augmented(pixels, how, generator), labels
    return augmented_with_masks(pixels, labels.to(pixels.device), how, generator)


def chosen_indices(count: int, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
    """Return the indices of each batch; a single image at the end of a random order joins others.

    A batch of one has no variance, and batch norm cannot train on it.
    """
    if generator is None:
        return list(torch.arange(count).split(batch_size))
    batches = list(torch.randperm(count, generator=generator).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def batch_count(count: int, batch_size: int) -> int:
    """Return how many batches `count` images make in a random order."""
    whole, rest = divmod(count, batch_size)
    return whole + (rest > 1 or (rest == 1 and whole == 0))
