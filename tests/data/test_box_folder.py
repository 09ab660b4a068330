"""Images with boxes in COCO's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gnnrl.data.load import load_data
from gnnrl.data.settings import DataRecipe
from gnnrl.errors import UserError

BOX = {"id": 7, "image_id": 3, "category_id": 9, "bbox": [20, 10, 20, 20]}


def written(root: Path, **changes: Any) -> Path:
    """Two images of 80x40 pixels in each split, one box in the first; changes: of boxes.json."""
    for split in ("train", "test"):
        folder = root / split / "images"
        folder.mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Image.fromarray(np.zeros((40, 80, 3), dtype=np.uint8)).save(folder / name)
        content = {
            "images": [{"id": 3, "file_name": "a.png"}, {"id": 4, "file_name": "b.png"}],
            "annotations": [BOX],
            "categories": [{"id": 9, "name": "cup"}, {"id": 5, "name": "cat"}],
        } | changes
        (root / split / "boxes.json").write_text(json.dumps(content))
    return root


def opened(root: Path) -> Any:
    recipe = DataRecipe(name="image_folder", root=str(root), reward_images=1, augmentation="none")
    return load_data(recipe, (3, 20, 20), "boxes")


def test_boxes_move_with_the_image_and_classes_begin_after_the_background(tmp_path):
    splits = opened(written(tmp_path))
    assert splits.classes == ("background", "cat", "cup")
    targets = splits.test.labels
    # scaled by a half and cut from 40 to 20 pixels in width
    assert targets.boxes[0].tolist() == [[0.0, 5.0, 10.0, 15.0]]
    assert targets.labels[0].tolist() == [2] and len(targets.boxes[1]) == 0


def test_boxes_that_are_mostly_cut_off_are_left_out(tmp_path):
    boxes = [BOX | {"bbox": [4, 10, 20, 20]}, BOX | {"bbox": [10, 10, 20, 20]}]
    targets = opened(written(tmp_path, annotations=boxes)).test.labels
    assert targets.boxes[0].tolist() == [[0.0, 5.0, 5.0, 15.0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": []}, "has no boxes, so there is nothing to detect"),
        ({"annotations": [BOX | {"category_id": 1}]}, "is of category 1, which is none of"),
        ({"annotations": [BOX | {"image_id": 1}]}, "is of image 1, which is not listed"),
        ({"annotations": [BOX | {"bbox": [1, 2, 0, 4]}]}, "expected left, top, width, height"),
        ({"images": [{"id": 3, "file_name": "c.png"}]}, "are not there, such as"),
        ({"categories": "cup"}, "cannot be read as boxes"),
    ],
)
def test_what_is_wrong_with_boxes_is_said_in_one_sentence(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        opened(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_boxes_reach_a_batch(tmp_path):
    images, targets = next(opened(written(tmp_path)).test.batches(2, torch.device("cpu")))
    assert images.shape == (2, 3, 20, 20) and len(targets.boxes) == 2
