"""The name of a data set becomes its splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from gnnrl.data.arrays import digits
from gnnrl.data.box_folder import box_folder
from gnnrl.data.canvas import digit_canvas
from gnnrl.data.cifar import CIFAR10, CIFAR100, cifar
from gnnrl.data.folders import image_folder, imagenet
from gnnrl.data.masks import mask_folder, unlabelled_folder
from gnnrl.data.published import download, fashion_mnist, mnist, svhn
from gnnrl.data.settings import DataRecipe
from gnnrl.data.splits import Source, Splits
from gnnrl.data.transform import AUGMENTATIONS, Augmentation, Transform
from gnnrl.errors import UserError
from gnnrl.files import user_path
from gnnrl.registry import named
from gnnrl.shapes import Shape, as_shape

Opener: TypeAlias = Callable[[Path, Shape, Transform], Source]


@dataclass(frozen=True)
class Kind:
    """How a data set is opened, and what is customary for it.

    open: by the targets that it has: classes, masks, boxes, none.
    torchvision: its name there, if it can be downloaded.
    """

    open: Mapping[str, Opener]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    needs_root: bool = True
    torchvision: str | None = None


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

KINDS: Mapping[str, Kind] = {
    "digits": Kind({"classes": digits}, (0.305,), (0.328,), "crop", needs_root=False),
    "digit_canvas": Kind(
        {
            "masks": partial(digit_canvas, targets="masks"),
            "boxes": partial(digit_canvas, targets="boxes"),
        },
        (0.19,),
        (0.2,),
        "none",
        needs_root=False,
    ),
    "image_folder": Kind(
        {
            "classes": image_folder,
            "masks": mask_folder,
            "boxes": box_folder,
            "none": unlabelled_folder,
        },
        IMAGENET_MEAN,
        IMAGENET_STD,
        "crop_flip",
    ),
    "cifar10": Kind(
        {"classes": partial(cifar, kind=CIFAR10)},
        (0.4914, 0.4822, 0.4465),
        (0.247, 0.2435, 0.2616),
        "crop_flip",
        torchvision="CIFAR10",
    ),
    "cifar100": Kind(
        {"classes": partial(cifar, kind=CIFAR100)},
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        "crop_flip",
        torchvision="CIFAR100",
    ),
    "mnist": Kind({"classes": mnist}, (0.1307,), (0.3081,), "crop", torchvision="MNIST"),
    "fashion_mnist": Kind(
        {"classes": fashion_mnist}, (0.286,), (0.353,), "crop_flip", torchvision="FashionMNIST"
    ),
    "svhn": Kind(
        {"classes": svhn},
        (0.4377, 0.4438, 0.4728),
        (0.198, 0.201, 0.197),
        "crop",
        torchvision="SVHN",
    ),
    "imagenet": Kind({"classes": imagenet}, IMAGENET_MEAN, IMAGENET_STD, "resized_crop_flip"),
}


def load_data(
    recipe: DataRecipe, input_shape: Shape = (3, 32, 32), targets: str = "classes"
) -> Splits:
    """Return the splits, each read at its first use, as images of the input shape.

    targets: what is asked of an image: classes, masks, boxes or none.  Raises `UserError` where the
    data set has something else, or the augmentation would not move it with the image.
    """
    kind = _kind(recipe)
    if kind.needs_root and not recipe.root:
        raise UserError(f"the data set {recipe.name} needs a root: the folder its images are in")
    root = user_path(recipe.root or ".")
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
    download(kind.torchvision, root)


def _opener(kind: Kind, name: str, targets: str) -> Opener:
    if targets in kind.open:
        return kind.open[targets]
    if targets == "none" or "own" in kind.open:
        return next(iter(kind.open.values()))
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
    return Kind({"own": found}, recipe.mean, recipe.std, "none", needs_root=False)


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
