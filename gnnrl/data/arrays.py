"""Data sets that come as arrays: digits, CIFAR-10, CIFAR-100, FashionMNIST."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
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
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


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


def fashion_mnist(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """70,000 grey images of clothes (Xiao et al. 2017), in torchvision's folder and files."""

    def read(split: str) -> Arrays:
        from torchvision.datasets import FashionMNIST

        try:
            data = FashionMNIST(str(root), train=split == "train")
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            raise UserError(_unreadable("FashionMNIST", root, error)) from error
        return data.data[:, None], data.targets.long()

    return array_source("fashion_mnist", FASHION, read, input_shape, transform)


@dataclass(frozen=True)
class Cifar:
    """Names in the archives of Krizhevsky 2009, "python version"."""

    title: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    label: str  # what the keys of labels and class names begin with


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
CIFAR10 = Cifar("CIFAR10", "cifar-10-batches-py", BATCHES, ("test_batch",), "batches.meta", "label")
CIFAR100 = Cifar("CIFAR100", "cifar-100-python", ("train",), ("test",), "meta", "fine_label")


def cifar(root: Path, input_shape: Shape, transform: Transform, kind: Cifar) -> Source:
    """Return CIFAR-10 or CIFAR-100 from the unpacked archive below `root`."""

    def read(split: str) -> Arrays:
        parts = [_unpickled(root, kind, name) for name in files[split]]
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = [label for part in parts for label in part[f"{kind.label}s"]]
        return torch.from_numpy(pixels), torch.tensor(labels)

    files = {"train": kind.train, "test": kind.test}
    classes = tuple(_unpickled(root, kind, kind.meta)[f"{kind.label}_names"])
    return array_source(kind.title, classes, read, input_shape, transform)


class _Arrays(pickle.Unpickler):
    """Reads what CIFAR's files hold, and nothing that could run code.

    torchvision's reader calls pickle.load after it compared MD5 digests: no guard for a file that
    is replaced in between, and no way to read a part of the data set.
    """

    allowed = frozenset({"_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype", "encode"})

    def find_class(self, module: str, name: str) -> object:
        """Return NumPy's constructors of arrays only."""
        if name not in self.allowed or module.split(".")[0] not in ("numpy", "_codecs"):
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into it")
        return super().find_class(module, name)


def _unpickled(root: Path, kind: Cifar, name: str) -> dict[str, list]:
    try:
        with open(root / kind.folder / name, "rb") as file:
            return _Arrays(file, encoding="latin1").load()
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(_unreadable(kind.title, root / kind.folder, error)) from error


def _unreadable(title: str, root: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"{title} cannot be read from {root} ({reason}): download it there with "
        f"`torchvision.datasets.{title}(root, download=True)`"
    )
