"""CIFAR-10 and CIFAR-100, from their unpacked archives."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gnnrl.data.arrays import Arrays, array_source
from gnnrl.data.published import unreadable
from gnnrl.data.splits import Source
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.shapes import Shape


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


def cifar10(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """60,000 colour images of 32x32 pixels in 10 classes (Krizhevsky 2009)."""
    return _cifar(root, input_shape, transform, CIFAR10)


def cifar100(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """60,000 colour images of 32x32 pixels in 100 classes (Krizhevsky 2009)."""
    return _cifar(root, input_shape, transform, CIFAR100)


def _cifar(root: Path, input_shape: Shape, transform: Transform, kind: Cifar) -> Source:
    """Either of them from the unpacked archive below `root`."""

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
        raise UserError(unreadable(kind.title, root / kind.folder, error)) from error
