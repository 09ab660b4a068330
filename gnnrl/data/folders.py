"""Data sets of image files: the user's own folder, and ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from gnnrl.data.class_folders import IMAGE_FOLDERS, class_folders
from gnnrl.data.files import Decoder, Files, decode_all, list_files
from gnnrl.data.images import Images, Labelled
from gnnrl.data.splits import Listing, Source
from gnnrl.data.streamed import StreamedImages
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.shapes import Shape

IN_MEMORY = 4 * 2**30  # bytes of pixels; images beyond stay on disk
IMAGENET_MARGIN = 256 / 224  # the shorter side becomes 256 before 224 pixels are cut out
IMAGENET_FOLDERS = {"train": "train", "test": "val"}


def image_folder(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """Images in and below root/train/<class> and root/test/<class>, the same classes in both."""
    return _folders(root, IMAGE_FOLDERS, Decoder(input_shape), transform)


def imagenet(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """ImageNet 2012 as torchvision keeps it: train and val, or the archives they come from."""
    if root.is_dir():
        for split in IMAGENET_FOLDERS.values():
            _unpack(root, split)
    return _folders(root, IMAGENET_FOLDERS, Decoder(input_shape, IMAGENET_MARGIN), transform)


def _unpack(root: Path, split: str) -> None:
    """Make the folder of a split from its archive where only that is there."""
    if (root / split).is_dir() or not any(root.glob(f"ILSVRC2012_img_{split}*.tar")):
        return
    from torchvision.datasets import ImageNet

    try:
        ImageNet(str(root), split)
    except (OSError, RuntimeError) as error:
        raise UserError(f"ImageNet in {root} cannot be unpacked: {error}") from error


def _folders(
    root: Path, folders: Mapping[str, str], decode: Decoder, transform: Transform
) -> Source:
    found = {split: list_files(each) for split, each in class_folders(root, folders).items()}
    listed = {split: partial(listing, files, decode, transform) for split, files in found.items()}
    return Source(root.name, found["train"].classes, listed["train"], listed["test"])


def listing(files: Files, decode: Decoder, transform: Transform) -> Listing:
    """Return image files as images that are read where they are asked for."""

    def stream(indices: Tensor) -> Labelled:
        every = StreamedImages(files.paths, files.labels, transform, decode)
        return every.take(indices)

    def read(indices: Tensor) -> Labelled:
        channels, height, width = decode.input_shape
        if len(indices) * channels * height * width > IN_MEMORY:
            return stream(indices)
        pixels = decode_all([files.paths[i] for i in indices.tolist()], decode)
        return Images(pixels, files.labels[indices], transform)

    # parts of any scale are cut out of the whole file, which memory does not hold
    return Listing(files.labels, read, stream if transform.augmentation.resized else read)
