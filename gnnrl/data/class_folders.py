"""A folder with a folder per class: looked at before anything is read, and without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gnnrl.errors import UserError

IMAGE_FOLDERS = {"train": "train", "test": "test"}
"""Folders of the splits of the data set image_folder."""


def class_folders(root: Path, folders: Mapping[str, str] = IMAGE_FOLDERS) -> dict[str, list[Path]]:
    """Return the class folders of each split, in the order of their names.

    folders: split → its folder in `root`.  Raises `UserError` where one is missing, where the
    splits have different classes, and where there is one class only.
    """
    train, test = (root / folders[split] for split in ("train", "test"))
    if not root.is_dir():
        raise UserError(
            f"there is no image folder {root}: expected {train}/<class>/*.png and "
            f"{test}/<class>/*.png"
        )
    found = {"train": _classes(train), "test": _classes(test)}
    _same(found["train"], found["test"], test)
    _same(found["test"], found["train"], train)
    if len(found["train"]) < 2:
        raise UserError(
            f"{train} holds one class ({found['train'][0].name!r}): any network would be right on "
            "it, expected at least two"
        )
    return found


def _classes(folder: Path) -> list[Path]:
    """The folders in a folder, except hidden ones."""
    try:
        inside = sorted(path for path in folder.iterdir() if _is_class(path))
    except OSError as error:
        raise UserError(
            f"the image folder {folder} cannot be read ({error.strerror}): expected {folder}/"
            "<class>/*.png (or .jpg)"
        ) from error
    if not inside:
        raise UserError(
            f"{folder} has no folders in it, one per class is needed: expected {folder}/"
            "<class>/*.png (or .jpg)"
        )
    return inside


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _same(here: list[Path], there: list[Path], folder: Path) -> None:
    missing = sorted({path.name for path in here} - {path.name for path in there})
    if missing:
        raise UserError(
            f"the class {missing[0]!r} has no folder in {folder}: training and test images need "
            "the same classes, add it or remove it from both"
        )
