"""Random changes of training images, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """Random changes that leave the class as it is.

    padding: pixels of black put around an image before it is cut to its old size at random.
    resized: a random part of the image, scaled up to its size (Szegedy et al. 2015).
    """

    padding: int = 0
    flip: bool = False
    resized: bool = False


UNCHANGED = Augmentation()

AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": UNCHANGED,
    "crop": Augmentation(padding=4),
    "crop_flip": Augmentation(padding=4, flip=True),
    "resized_crop_flip": Augmentation(resized=True, flip=True),
}
