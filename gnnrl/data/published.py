"""Data sets that torchvision downloads, and reads: MNIST, FashionMNIST, SVHN."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from gnnrl.data.arrays import Arrays, array_source
from gnnrl.data.splits import Source
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.shapes import Shape

DIGITS = tuple("0123456789")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FAULTS = (OSError, RuntimeError, ValueError, AssertionError)
"""What torchvision raises for files that are missing or damaged, and without a connection."""


def mnist(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """70,000 grey handwritten digits of 28x28 pixels (LeCun et al. 1998)."""
    read = partial(_grey, "MNIST", root)
    return array_source("mnist", DIGITS, read, input_shape, transform)


def fashion_mnist(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """70,000 grey images of clothes of 28x28 pixels (Xiao et al. 2017)."""
    read = partial(_grey, "FashionMNIST", root)
    return array_source("fashion_mnist", FASHION, read, input_shape, transform)


def svhn(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """99,289 house numbers of 32x32 pixels (Netzer et al. 2011), without the extra images."""

    def read(split: str) -> Arrays:
        data = _opened("SVHN", root, split)
        return torch.from_numpy(data.data), torch.from_numpy(np.asarray(data.labels)).long()

    return array_source("svhn", DIGITS, read, input_shape, transform)


def _grey(title: str, root: Path, split: str) -> Arrays:
    data = _opened(title, root, split)
    return data.data[:, None], data.targets.long()


def _opened(title: str, root: Path, split: str, download: bool = False) -> Any:
    """Return torchvision's data set of that name."""
    from torchvision import datasets

    kind = getattr(datasets, title)
    by_name = "split" in inspect.signature(kind).parameters
    given = {"split": split} if by_name else {"train": split == "train"}
    try:
        return kind(str(root), download=download, **given)
    except FAULTS as error:
        raise UserError(unreadable(title, root, error)) from error


def download(title: str, root: Path) -> None:
    """Download a data set of torchvision into its folder, unless it is there; digests are checked.

    Raises `UserError` where it cannot be fetched.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{title}.lock"):
        for split in ("train", "test"):
            _opened(title, root, split, download=True)


def unreadable(title: str, root: Path, error: Exception) -> str:
    """Say that the files of a data set are missing or damaged, and what to do."""
    reason = " ".join(str(error).split())
    return (
        f"{title} cannot be read from {root} ({reason}): set data.download to true where there is "
        "a connection, or put torchvision's files there"
    )
