"""Labelled images in memory, served in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from gnnrl.data.transform import Transform, augmented

# N: images   B: images of a batch   C: channels   H, W: height, width

Shape: TypeAlias = tuple[int, int, int]  # channels, height, width of one image
Batch: TypeAlias = tuple[Tensor, Tensor]  # images, normalised, float32 [B, C, H, W]; labels [B]


class Labelled(Protocol):
    """What training and evaluation need to know of images, wherever they are held."""

    labels: Tensor  # [N], whole numbers from 0

    def __len__(self) -> int:
        """Return N."""

    @property
    def input_shape(self) -> Shape:
        """Channels, height, width of one image."""

    def take(self, indices: Tensor) -> Labelled:
        """Return these images only, in this order."""

    def to(self, device: torch.device) -> Labelled:
        """Return the same images, held on the device if they are held at all."""

    def fingerprint(self) -> str:
        """Return a digest that changes with the images."""

    def batches(
        self,
        batch_size: int,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
        *,
        augment: bool = False,
    ) -> Iterator[Batch]:
        """Serve every image once, in a random order if there is a generator.

        augment: change them at random as the data set has it; needs a generator.
        """


@dataclass(frozen=True, eq=False)
class Images:
    """pixels: uint8 [N, C, H, W].  labels: [N], whole numbers from 0."""

    pixels: Tensor
    labels: Tensor
    transform: Transform

    def __len__(self) -> int:
        return len(self.labels)

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
        digest = hashlib.sha256(repr(self.transform).encode())
        for tensor in (self.pixels, self.labels):
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:20]

    def batches(
        self,
        batch_size: int,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
        *,
        augment: bool = False,
    ) -> Iterator[Batch]:
        """Serve every image once, in a random order if there is a generator."""
        how = self.transform.augmentation_if(augment)
        for chosen in chosen_indices(len(self), batch_size, generator):
            here = chosen.to(self.pixels.device)
            pixels, labels = self.pixels[here].to(device), self.labels[here].to(device)
            if generator is not None:
                pixels = augmented(pixels, how, generator)
            yield self.transform.normalised(pixels), labels


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
