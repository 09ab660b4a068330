"""The name of a data set becomes its splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from gnnrl.data.augmentations import AUGMENTATIONS, Augmentation
from gnnrl.data.kinds import KINDS, Kind
from gnnrl.data.settings import DataRecipe, root_of
from gnnrl.data.splits import Source, Splits
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.registry import imported, named
from gnnrl.shapes import Shape, as_shape

Opener: TypeAlias = Callable[[Path, Shape, Transform], Source]


def load_data(
    recipe: DataRecipe, input_shape: Shape = (3, 32, 32), targets: str = "classes"
) -> Splits:
    """Return the splits, each read at its first use, as images of the input shape.

    targets: what is asked of an image: classes, masks, boxes or none.  Raises `UserError` where the
    data set has something else, or the augmentation would not move it with the image.
    """
    kind = _kind(recipe)
    root = root_of(recipe, kind.needs_root)
    if recipe.download:
        _download(kind, recipe.name, root)
    transform = _transform(kind, recipe, input_shape[0])
    opened = _opener(kind, recipe.name, targets)(root, as_shape(input_shape), transform)
    source = replace(opened, name=recipe.name)
    if targets not in (source.targets, "none"):
        raise UserError(_without(recipe.name, source.targets, targets))
    _refuse_moves(transform.augmentation, targets)
    if len(source.classes) < 2 and targets != "none":
        raise UserError(
            f"{root} has {len(source.classes)} classes ({', '.join(source.classes) or 'none'}): "
            "expected at least two"
        )
    return Splits(
        source,
        reward_images=recipe.reward_images,
        reward_from=recipe.reward_from,
        seed=recipe.seed,
    )


def _download(kind: Kind, name: str, root: Path) -> None:
    if kind.torchvision is None:
        known = ", ".join(other for other, each in KINDS.items() if each.torchvision)
        raise UserError(
            f"data.download is true, but {name} cannot be downloaded, only {known}: set it to false"
        )
    from gnnrl.data.published import download

    download(kind.torchvision, root)


def _opener(kind: Kind, name: str, targets: str) -> Opener:
    if targets in kind.open:
        return imported(kind.open[targets], "data set")
    if targets == "none" or "own" in kind.open:
        return imported(next(iter(kind.open.values())), "data set")
    raise UserError(_without(name, " or ".join(kind.open), targets))


def _without(name: str, has: str, targets: str) -> str:
    others = [other for other, kind in KINDS.items() if targets in kind.open]
    return (
        f"the data set {name} has {has}, the task needs {targets}: set data.name to "
        f"{' or '.join(others)}{' or ' if others else ''}one of your own, or another task.name"
    )


def _refuse_moves(how: Augmentation, targets: str) -> None:
    """Raise `UserError` for random changes that the targets cannot follow."""
    if targets == "boxes" and how != Augmentation():
        raise UserError("data.augmentation moves images, but not their boxes: set it to none")
    if targets == "masks" and how.resized:
        raise UserError(
            "data.augmentation resized_crop_flip scales images, but not their masks: set it to "
            "none, crop or crop_flip"
        )


def _kind(recipe: DataRecipe) -> Kind:
    found = named(recipe.name, KINDS, "data set")
    if isinstance(found, Kind):
        return found
    if not (recipe.mean and recipe.std):
        raise UserError(
            f"no mean and standard deviation are customary for {recipe.name}: give data.mean and "
            "data.std, one number per channel"
        )
    return Kind({"own": recipe.name}, recipe.mean, recipe.std, "none", needs_root=False)


def transform_of(recipe: DataRecipe, input_shape: Shape) -> Transform:
    """Return how pixels become a network's input."""
    return _transform(_kind(recipe), recipe, input_shape[0])


def _transform(kind: Kind, recipe: DataRecipe, channels: int) -> Transform:
    name = recipe.augmentation or kind.augmentation
    return Transform(
        tuple(recipe.mean or kind.mean),
        tuple(recipe.std or kind.std),
        named(name, AUGMENTATIONS, "augmentation"),
    ).for_channels(channels)
