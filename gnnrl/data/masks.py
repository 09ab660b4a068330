"""Data sets of image files with a mask each, and of image files alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gnnrl.data.files import Decoder, Files, decode_all, images_in, middle, oriented_size
from gnnrl.data.folders import IN_MEMORY, listing
from gnnrl.data.images import Images, Labelled
from gnnrl.data.splits import Listing, Source
from gnnrl.data.targets import refuse_out_of_range
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.shapes import Shape

SPLITS = ("train", "test")
CLASSES = "classes.txt"
MASK_MODES = ("L", "P", "1")
"""Of Pillow: a class number for each pixel, plain or as the index of a palette."""


def mask_folder(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """Images in and below root/train/images and root/test/images, masks of the same names below
    masks, and root/classes.txt with the name of a class on each line.

    A mask has the class of each pixel, 0 for the first line; 255 counts for nothing.  Images and
    masks are scaled to cover the input shape and cut at their middle; all are held in memory.
    """
    classes = _classes(root / CLASSES)
    pairs = {split: _pairs(root / split) for split in SPLITS}
    listed = {
        split: partial(_listing, *found, len(classes), Decoder(input_shape), transform)
        for split, found in pairs.items()
    }
    return Source(root.name, classes, listed["train"], listed["test"], "masks")


def unlabelled_folder(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """All images in and below root/train and root/test, whatever folders they are in."""

    def listed(split: str) -> Listing:
        paths = _found(root / split)
        files = Files(tuple(paths), torch.zeros(len(paths), dtype=torch.long), ())
        return listing(files, Decoder(input_shape), transform)

    for split in SPLITS:
        _found(root / split)
    return Source(root.name, (), partial(listed, "train"), partial(listed, "test"), "none")


def _classes(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): expected the name of a class on each line, the "
            "first for pixels of 0 in the masks"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def _found(folder: Path) -> list[Path]:
    """Return the images in and below a folder; raise `UserError` where there are none."""
    try:
        paths = images_in(folder)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from error
    if not paths:
        raise UserError(f"the folder {folder} holds no images: put some there")
    return paths


def _pairs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return images and their masks, in the same order."""
    images, masks = (
        {path.relative_to(folder / part).with_suffix(""): path for path in _found(folder / part)}
        for part in ("images", "masks")
    )
    for these, others, what in ((images, masks, "mask"), (masks, images, "image")):
        alone = [path for name, path in these.items() if name not in others]
        if alone:
            raise UserError(
                f"{len(alone)} of {len(these)} {'images' if what == 'mask' else 'masks'} below "
                f"{folder} have no {what} of the same name, such as {alone[0]}: expected "
                f"{folder}/images/NAME.jpg with {folder}/masks/NAME.png, add or remove them"
            )
    return list(images.values()), [masks[name] for name in images]


def _listing(
    images: list[Path], masks: list[Path], classes: int, decode: Decoder, transform: Transform
) -> Listing:
    channels, height, width = decode.input_shape
    if len(images) * (channels + 1) * height * width > IN_MEMORY:
        raise UserError(
            f"{len(images)} images of {channels}x{height}x{width} with masks take more than "
            f"{IN_MEMORY // 2**30} GB of memory: lower network.input_shape, or write a data set of "
            "your own"
        )

    def read(indices: Tensor) -> Labelled:
        chosen = indices.tolist()
        pixels = decode_all([images[i] for i in chosen], decode)
        size = (width, height)
        read = [_mask(masks[i], images[i], size, classes) for i in chosen]
        return Images(pixels, torch.from_numpy(np.stack(read)), transform)

    return Listing(torch.zeros(len(images), dtype=torch.long), read, read)


def _mask(path: Path, image: Path, size: tuple[int, int], classes: int) -> np.ndarray:
    """Read a mask as uint8 [H, W], scaled and cut as its image is; size: width, height."""
    try:
        with Image.open(path) as file:
            file.load()
            mask = file.copy()
    except Exception as error:  # Pillow's decoders raise a dozen kinds
        raise UserError(f"the mask {path} cannot be read ({error}): replace it") from error
    if mask.mode not in MASK_MODES:
        raise UserError(
            f"the mask {path} is of the kind {mask.mode}, expected one class number of 8 bits for "
            "each pixel (grey or palette): convert it"
        )
    if mask.size != (wanted := oriented_size(image)):
        raise UserError(
            f"the mask {path} has {mask.width}x{mask.height} pixels, its image "
            f"{wanted[0]}x{wanted[1]}: they must have the same size"
        )
    if mask.mode == "1":
        mask = Image.fromarray(np.asarray(mask).astype(np.uint8))
    refuse_out_of_range(torch.from_numpy(np.array(mask))[None], classes, f"the mask {path}")
    box = middle(mask.size, size, 1.0)
    return np.array(mask.resize(size, Image.Resampling.NEAREST, box=box))
