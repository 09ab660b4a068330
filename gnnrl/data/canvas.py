"""Digits on canvases: images with a mask and with boxes, drawn and not downloaded."""

# H, W: height, width of a canvas

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnnrl.data.arrays import Arrays, array_source, read_digits
from gnnrl.data.splits import Source
from gnnrl.data.targets import Boxes
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.runtime import generator
from gnnrl.shapes import Shape

CLASSES = ("background", *"0123456789")
COUNTS = {"train": 2000, "test": 500}
MOST = 3  # digits on a canvas
SMALLEST, LARGEST = 0.35, 0.6  # side of a digit over the shorter side of the canvas
INK = 96  # from here on a pixel belongs to the digit
NOISE = 60  # grey values of the background
TRIES = 20  # to find room for a digit
LEAST = 24  # pixels of a side of a canvas


def with_masks(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """Digits on canvases, each with its mask (0: background, 1 + digit)."""
    return _digit_canvas(input_shape, transform, "masks")


def with_boxes(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """Digits on canvases, each with its boxes; the classes are those of the masks."""
    return _digit_canvas(input_shape, transform, "boxes")


def _digit_canvas(input_shape: Shape, transform: Transform, targets: str) -> Source:
    """2,000 training and 500 test canvases of the input shape, one to three digits on each.

    scikit-learn's digits, those for tests on test canvases only, scaled to between 35 and
    60 % of the canvas, apart from each other, before a background of noise.  The same canvases
    every time.
    """
    height, width = input_shape[1:]
    if min(height, width) < LEAST:
        raise UserError(
            f"digit_canvas draws canvases of at least {LEAST}x{LEAST} pixels, the network takes "
            f"{height}x{width}: raise network.input_shape"
        )
    read = partial(_drawn, height=height, width=width, targets=targets)
    return array_source("digit_canvas", CLASSES, read, input_shape, transform, targets)


def _drawn(split: str, height: int, width: int, targets: str) -> Arrays:
    digits, labels = read_digits(split)
    rng = np.random.default_rng(generator(0, f"canvases to {split}").initial_seed())
    pixels, masks, boxes = [], [], []
    least, most = (round(part * min(height, width)) for part in (SMALLEST, LARGEST))
    drawn = {side: _scaled(digits, side) for side in range(least, most + 1)}
    for _ in range(COUNTS[split]):
        canvas = _Canvas(height, width, rng)
        for i in rng.integers(len(digits), size=rng.integers(1, MOST + 1)):
            canvas.place(drawn[int(rng.integers(least, most + 1))][i], 1 + int(labels[i]))
        pixels.append(canvas.pixels)
        masks.append(canvas.mask)
        boxes.append(canvas.boxes)
    images = torch.from_numpy(np.stack(pixels))[:, None]
    if targets == "masks":
        return images, torch.from_numpy(np.stack(masks))
    return images, _boxes(boxes)


class _Canvas:
    """One image while it is drawn: pixels and mask uint8 [H, W], rows of class and box."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.pixels = rng.integers(NOISE, size=(height, width)).astype(np.uint8)
        self.mask = np.zeros((height, width), dtype=np.uint8)
        self.boxes: list[tuple[int, int, int, int, int]] = []
        self.rng = rng

    def place(self, drawn: np.ndarray, label: int) -> None:
        """Draw a digit uint8 [n, n] where there is room; leave it out where there is none."""
        (height, width), side = self.mask.shape, len(drawn)
        tops = self.rng.integers(height - side + 1, size=TRIES).tolist()
        lefts = self.rng.integers(width - side + 1, size=TRIES).tolist()
        for top, left in zip(tops, lefts, strict=True):
            part = np.s_[top : top + side, left : left + side]
            if not self.mask[part].any():
                self.pixels[part] = np.maximum(self.pixels[part], drawn)
                self.mask[part][drawn >= INK] = label
                rows, columns = np.nonzero(drawn >= INK)
                self.boxes.append(
                    (
                        label,
                        left + int(columns.min()),
                        top + int(rows.min()),
                        left + int(columns.max()) + 1,
                        top + int(rows.max()) + 1,
                    )
                )
                return


def _scaled(digits: Tensor, side: int) -> np.ndarray:
    size = (side, side)
    pixels = torch.nn.functional.interpolate(digits.float(), size, mode="bilinear")
    return pixels[:, 0].round().clamp(0, 255).numpy().astype(np.uint8)


def _boxes(found: list[list[tuple[int, int, int, int, int]]]) -> Boxes:
    rows = [torch.tensor(image, dtype=torch.float32).view(-1, 5) for image in found]
    return Boxes(tuple(r[:, 1:] for r in rows), tuple(r[:, 0].long() for r in rows))
