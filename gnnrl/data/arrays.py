"""Data sets that come as arrays, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnrl.data.images import Images, Labelled
from gnnrl.data.splits import Listing, Source, carve
from gnnrl.data.targets import Boxes, Targets, refuse_out_of_range
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.runtime import generator
from gnnrl.shapes import Shape

Arrays: TypeAlias = tuple[Tensor, Targets]  # pixels uint8 [N, C, H, W], and what is known of them

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow has it
CHUNK = 4096  # images scaled at a time
DIGITS_IN_TEST = 0.2


def fitted(pixels: Tensor, input_shape: Shape) -> Tensor:
    """Return uint8 [N, *input_shape]: grey repeated or colours mixed, scaled bilinearly."""
    channels, height, width = input_shape
    if pixels.shape[1:] == input_shape:
        return pixels
    if pixels.shape[1] == 3 and channels == 1:
        weights = torch.tensor(GREY).view(1, 3, 1, 1)
        pixels = (pixels * weights).sum(1, keepdim=True).round().to(torch.uint8)
    elif pixels.shape[1] not in (1, channels):
        raise UserError(f"images have {pixels.shape[1]} channels, the network takes {channels}")
    if pixels.shape[2:] != (height, width):
        scaled = [_scaled(part, height, width) for part in pixels.split(CHUNK)]
        pixels = torch.cat(scaled)
    return pixels.expand(-1, channels, -1, -1).contiguous()


def _scaled(pixels: Tensor, height: int, width: int) -> Tensor:
    """Reduce with an antialiasing filter, enlarge by plain interpolation."""
    reduced = pixels.shape[2] > height or pixels.shape[3] > width
    size = (height, width)
    scaled = F.interpolate(pixels.float(), size, mode="bilinear", antialias=reduced)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _fitted_targets(targets: Targets, size: Iterable[int], input_shape: Shape) -> Targets:
    """Return masks and boxes of images of that height and width as of the input shape's."""
    (height, width), (high, wide) = size, input_shape[1:]
    if (height, width) == (high, wide) or (isinstance(targets, Tensor) and targets.ndim == 1):
        return targets
    if isinstance(targets, Tensor):
        return F.interpolate(targets[:, None], (high, wide), mode="nearest-exact")[:, 0]
    scale = torch.tensor([wide / width, high / height] * 2)
    return Boxes(tuple(boxes * scale for boxes in targets.boxes), targets.labels)


def _listing(arrays: Arrays, input_shape: Shape, transform: Transform) -> Listing:
    pixels, labels = arrays

    def read(indices: Tensor) -> Labelled:
        targets = _fitted_targets(labels[indices], pixels.shape[2:], input_shape)
        return Images(fitted(pixels[indices], input_shape), targets, transform)

    alike = isinstance(labels, Tensor) and labels.ndim == 1
    shares = labels if alike else torch.zeros(len(labels), dtype=torch.long)
    assert isinstance(shares, Tensor)
    return Listing(shares, read, read)


def array_source(
    name: str,
    classes: tuple[str, ...],
    read: Callable[[str], Arrays],
    shape: Shape,
    transform: Transform,
    targets: str = "classes",
) -> Source:
    """Return a data set from arrays; `read("train")` and `read("test")` are called at first use.

    read: gives pixels uint8 [N, C, H, W], scaled to `shape` where they are of another, and their
    targets: classes [N], whole numbers from 0; masks uint8 [N, H, W]; `Boxes`.
    targets: which of these: classes, masks, boxes.
    """

    def listed(split: str) -> Listing:
        arrays = read(split)
        refuse_out_of_range(arrays[1], len(classes), f"{name}, {split} images")
        return _listing(arrays, shape, transform)

    return Source(name, classes, partial(listed, "train"), partial(listed, "test"), targets)


def digits(root: Path | None, input_shape: Shape, transform: Transform) -> Source:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fixed fifth of each is for tests."""
    return array_source("digits", tuple("0123456789"), read_digits, input_shape, transform)


def read_digits(split: str) -> tuple[Tensor, Tensor]:
    """Return pixels uint8 [N, 1, 8, 8] and classes [N] of the split train or test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(data.images * (255 / 16)).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(data.target).long()
    count = int(len(labels) * DIGITS_IN_TEST)
    test, train = carve(labels, count, generator(0, "digits for tests"))
    chosen = {"train": train, "test": test}[split]
    return pixels[chosen], labels[chosen]
