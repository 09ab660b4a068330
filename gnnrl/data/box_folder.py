"""Data sets of image files with boxes, as COCO writes them (Lin et al. 2014)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl.data.files import Decoder, decode_all, middle, oriented_size
from gnnrl.data.folders import IN_MEMORY
from gnnrl.data.images import Images, Labelled
from gnnrl.data.splits import Listing, Source
from gnnrl.data.targets import Boxes
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.shapes import Shape

SPLITS = ("train", "test")
BACKGROUND = "background"
VISIBLE = 0.25
"""Boxes of which less than this share is left when an image is cut are left out."""


def box_folder(root: Path, input_shape: Shape, transform: Transform) -> Source:
    """Images in root/train/images and root/test/images, their boxes in boxes.json beside images.

    boxes.json is COCO's: `images` (id, file_name), `annotations` (image_id, category_id, bbox:
    left, top, width, height in pixels) and `categories` (id, name), which are the classes 1, 2 … in
    the order of their numbers; class 0 is the background.  Groups (iscrowd) are left out.
    Images are scaled to cover the input shape and cut at their middle, boxes with them; all
    images are held in memory.
    """
    read = {split: _File(root / split) for split in SPLITS}
    classes = read["train"].classes
    if read["test"].classes != classes:
        raise UserError(
            f"{read['train'].path} and {read['test'].path} have other categories: expected the "
            "same numbers and names in both"
        )
    listed = {
        split: partial(_listing, file, Decoder(input_shape), transform)
        for split, file in read.items()
    }
    return Source(root.name, (BACKGROUND, *classes), listed["train"], listed["test"], "boxes")


class _File:
    """What boxes.json says.  paths: of the images; rows: class and left, top, width, height."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "boxes.json"
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            categories = {c["id"]: str(c["name"]) for c in content["categories"]}
            images = {i["id"]: folder / "images" / i["file_name"] for i in content["images"]}
            rows: dict[Any, list[list[float]]] = {number: [] for number in images}
            label = {number: k + 1 for k, number in enumerate(sorted(categories))}
            for one in content["annotations"]:
                self._refuse_bad(one, images, categories)
                if not one.get("iscrowd"):
                    rows[one["image_id"]].append([label[one["category_id"]], *one["bbox"]])
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path} cannot be read as boxes ({type(error).__name__}: {error}): expected "
                "COCO's images (id, file_name), annotations (image_id, category_id, bbox) and "
                "categories (id, name)"
            ) from error
        if missing := [path for path in images.values() if not path.is_file()]:
            raise UserError(
                f"{len(missing)} of {len(images)} images that {self.path} names are not there, "
                f"such as {missing[0]}: add or remove them"
            )
        if not any(rows.values()):
            raise UserError(f"{self.path} has no boxes, so there is nothing to detect: add some")
        self.classes = tuple(categories[number] for number in sorted(categories))
        self.paths, self.rows = list(images.values()), list(rows.values())

    def _refuse_bad(
        self, one: Mapping[str, Any], images: Mapping[Any, Any], categories: Mapping[Any, Any]
    ) -> None:
        box, number = one["bbox"], one.get("id", "without id")
        if one["category_id"] not in categories:
            why = f"is of category {one['category_id']}, which is none of {sorted(categories)}"
        elif one["image_id"] not in images:
            why = f"is of image {one['image_id']}, which is not listed"
        elif len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
            why = f"has the bbox {box}, expected left, top, width, height, the last two above 0"
        else:
            return
        raise UserError(f"{self.path}: annotation {number} {why}: correct or remove it")


def _listing(file: _File, decode: Decoder, transform: Transform) -> Listing:
    if len(file.paths) * math.prod(decode.input_shape) > IN_MEMORY:
        raise UserError(
            f"the images of {file.path} take more than {IN_MEMORY // 2**30} GB of memory: lower "
            "network.input_shape, or write a data set of your own"
        )

    def read(indices: Tensor) -> Labelled:
        chosen = indices.tolist()
        found = [_fitted(file.paths[i], file.rows[i], decode.input_shape) for i in chosen]
        targets = Boxes(tuple(boxes for boxes, _ in found), tuple(labels for _, labels in found))
        return Images(decode_all([file.paths[i] for i in chosen], decode), targets, transform)

    return Listing(torch.zeros(len(file.paths), dtype=torch.long), read, read)


def _fitted(path: Path, rows: list[list[float]], input_shape: Shape) -> tuple[Tensor, Tensor]:
    """Return boxes `[n, 4]` and classes `[n]` as of the image that is scaled and cut."""
    height, width = input_shape[1:]
    left, top, right, bottom = middle(oriented_size(path), (width, height), 1.0)
    given = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    corners = torch.cat([given[:, 1:3], given[:, 1:3] + given[:, 3:]], dim=1)
    scale = corners.new_tensor([width / (right - left), height / (bottom - top)] * 2)
    moved = (corners - corners.new_tensor([left, top] * 2)) * scale
    boxes = torch.minimum(moved.clamp(min=0), moved.new_tensor([width, height] * 2))
    visible = _areas(boxes) >= VISIBLE * _areas(moved)
    visible &= (boxes[:, 2:] > boxes[:, :2]).all(1)
    return boxes[visible], given[visible, 0].long()


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
