"""Image files: where they lie, and how one becomes an array."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gnnrl.data.transform import boxes
from gnnrl.errors import UserError
from gnnrl.progress import progress
from gnnrl.shapes import Shape

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
BACKGROUND = "white"  # behind what is transparent
MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
MANY = 5000  # files; from here on reading them shows its progress


@dataclass(frozen=True)
class Files:
    """paths and labels [N] of the images below a folder per class."""

    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]


def list_files(folders: Sequence[Path]) -> Files:
    """Return the images in and below class folders, their names in order.

    Warns of files that are no images, with their number.
    """
    try:
        found = [images_in(path) for path in folders]
    except OSError as error:
        raise UserError(
            f"the image folder {folders[0].parent} cannot be read ({error.strerror})"
        ) from error
    if empty := [path for path, images in zip(folders, found, strict=True) if not images]:
        raise UserError(
            f"the class {empty[0].name!r} in {empty[0].parent} holds no images: expected "
            f"{empty[0]}/*.png (or .jpg)"
        )
    labels = torch.cat([torch.full((len(images),), i) for i, images in enumerate(found)])
    paths = tuple(path for images in found for path in images)
    return Files(paths, labels, tuple(path.name for path in folders))


def images_in(folder: Path) -> list[Path]:
    """Return the images in and below a folder, names in order; warn of files that are none."""
    found: list[str] = []
    others: Counter[str] = Counter()
    for place, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES and not name.startswith("."):
                found.append(os.path.join(place, name))
            elif not name.startswith("."):
                others[suffix or name] += 1
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        warnings.warn(
            f"{others.total()} files in {folder} are left out, they are no images ({kinds}): "
            f"images end in {', '.join(sorted(SUFFIXES))}",
            stacklevel=3,
        )
    return [Path(name) for name in sorted(found)]


def _stop(error: OSError) -> None:
    raise error


@dataclass(frozen=True)
class Decoder:
    """Reads a file as uint8 [C, H, W], scaled to cover the input shape and cut at its middle.

    Photos are turned as their EXIF tag says, what is transparent is put before a white background,
    and grey values of 16 bits are scaled to 8.

    margin: how much longer than the input shape the shorter side becomes before the cut.
    """

    input_shape: Shape
    margin: float = 1.0

    def __post_init__(self) -> None:
        if self.input_shape[0] not in MODES:
            raise UserError(
                f"image files have 1 or 3 channels, the network takes {self.input_shape[0]}: set "
                "the network's input shape accordingly"
            )

    def __call__(self, path: Path, part: Tensor | None = None) -> np.ndarray:
        """part: four numbers in [0, 1) which draw a random part of the image instead."""
        channels, height, width = self.input_shape
        try:
            with Image.open(path) as file:
                image = _plain(file).convert(MODES[channels])
        except Exception as error:  # Pillow's decoders raise a dozen kinds, zlib.error among them
            raise UserError(
                f"the image {path} cannot be read ({error}): replace or remove it"
            ) from error
        if part is None:
            box = middle(image.size, (width, height), self.margin)
        else:
            top, left, high, wide = boxes(part[None], image.height, image.width)[0].tolist()
            box = (left, top, left + wide, top + high)
        if image.size != (width, height) or box != (0, 0, width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        pixels = np.asarray(image)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _plain(file: Image.Image) -> Image.Image:
    """An image as it is meant to be seen, of 8 bits, without transparency."""
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its grey values are of 32 bits, expected 8 or 16: convert it")
        return Image.fromarray((values / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its grey values are fractions, expected 8 or 16 bits: convert it")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image


def middle(
    size: tuple[int, int], wanted: tuple[int, int], margin: float
) -> tuple[float, float, float, float]:
    """Return left, upper, right, lower of the largest part of `wanted` shape, less the margin."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1]) / margin
    wide, high = wanted[0] * scale, wanted[1] * scale
    left, top = (size[0] - wide) / 2, (size[1] - high) / 2
    return left, top, left + wide, top + high


def oriented_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image, turned as its EXIF tag says."""
    with Image.open(path) as file:
        return ImageOps.exif_transpose(file).size


def decode_all(paths: Sequence[Path], decode: Decoder) -> Tensor:
    """Return uint8 [N, C, H, W], all files in memory."""
    pixels = np.empty((len(paths), *decode.input_shape), dtype=np.uint8)
    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        progress("reading images", len(paths), visible=len(paths) >= MANY) as bar,
    ):
        for i, image in enumerate(threads.map(decode, paths)):
            pixels[i] = image
            bar.advance()
    return torch.from_numpy(pixels)
