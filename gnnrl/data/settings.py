"""Which images a run works with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gnnrl.errors import UserError
from gnnrl.files import user_path
from gnnrl.settings import Count, Float, Name, Probability, Seed, Settings, name_in

Scale = Annotated[Float, Field(ge=1e-3, le=1e3)]  # images divided by less are hardly finite


class DataRecipe(Settings):
    """Which images, and which of them score the search."""

    name: Annotated[str, name_in("gnnrl.data.kinds:KINDS")] = "digits"
    """digits, digit_canvas, image_folder, cifar10, cifar100, mnist, fashion_mnist, svhn,
    imagenet."""
    root: Name | None = None
    """Folder of the images (none for digits); ~ and $VARIABLES are expanded."""
    download: bool = False
    """Whether torchvision downloads the data set to `root` if it is not there."""
    reward_images: Count = 300
    """Images that score what the search finds."""
    reward_from: Literal["train", "test"] = "train"
    """train; test where pretrain.weights have seen the training images."""
    seed: Seed = 0
    """Of the choice of reward images."""
    augmentation: Annotated[str, name_in("gnnrl.data.augmentations:AUGMENTATIONS")] | None = None
    """none, crop, crop_flip, resized_crop_flip; null: as is customary for the data set."""
    mean: tuple[Probability, ...] | None = None
    """Per channel, of pixels in [0, 1]; null: as is customary for the data set."""
    std: tuple[Scale, ...] | None = None
    """Per channel, of pixels in [0, 1]; null: as is customary for the data set."""


def root_of(recipe: DataRecipe, needed: bool = True) -> Path:
    """Return the folder of the images; raise `UserError` where one is needed and none is given."""
    if needed and not recipe.root:
        raise UserError(f"the data set {recipe.name} needs a root: the folder its images are in")
    return user_path(recipe.root or ".")
