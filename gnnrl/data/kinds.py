"""Data sets by name, and what is customary for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """How a data set is opened, and what is customary for it.

    open: where its `Opener` is (`gnnrl.data.load`), by the targets that it has: classes, masks,
    boxes, none.
    torchvision: its name there, if it can be downloaded.
    """

    open: Mapping[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    needs_root: bool = True
    torchvision: str | None = None


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

KINDS: Mapping[str, Kind] = {
    "digits": Kind(
        {"classes": "gnnrl.data.arrays:digits"}, (0.305,), (0.328,), "crop", needs_root=False
    ),
    "digit_canvas": Kind(
        {
            "masks": "gnnrl.data.canvas:with_masks",
            "boxes": "gnnrl.data.canvas:with_boxes",
        },
        (0.19,),
        (0.2,),
        "none",
        needs_root=False,
    ),
    "image_folder": Kind(
        {
            "classes": "gnnrl.data.folders:image_folder",
            "masks": "gnnrl.data.masks:mask_folder",
            "boxes": "gnnrl.data.box_folder:box_folder",
            "none": "gnnrl.data.masks:unlabelled_folder",
        },
        IMAGENET_MEAN,
        IMAGENET_STD,
        "crop_flip",
    ),
    "cifar10": Kind(
        {"classes": "gnnrl.data.cifar:cifar10"},
        (0.4914, 0.4822, 0.4465),
        (0.247, 0.2435, 0.2616),
        "crop_flip",
        torchvision="CIFAR10",
    ),
    "cifar100": Kind(
        {"classes": "gnnrl.data.cifar:cifar100"},
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        "crop_flip",
        torchvision="CIFAR100",
    ),
    "mnist": Kind(
        {"classes": "gnnrl.data.published:mnist"}, (0.1307,), (0.3081,), "crop", torchvision="MNIST"
    ),
    "fashion_mnist": Kind(
        {"classes": "gnnrl.data.published:fashion_mnist"},
        (0.286,),
        (0.353,),
        "crop_flip",
        torchvision="FashionMNIST",
    ),
    "svhn": Kind(
        {"classes": "gnnrl.data.published:svhn"},
        (0.4377, 0.4438, 0.4728),
        (0.198, 0.201, 0.197),
        "crop",
        torchvision="SVHN",
    ),
    "imagenet": Kind(
        {"classes": "gnnrl.data.folders:imagenet"}, IMAGENET_MEAN, IMAGENET_STD, "resized_crop_flip"
    ),
}
