"""Images with masks, with boxes, and without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gnnrl.data.arrays import array_source
from gnnrl.data.augmentations import AUGMENTATIONS
from gnnrl.data.canvas import INK
from gnnrl.data.images import Images
from gnnrl.data.load import load_data
from gnnrl.data.settings import DataRecipe
from gnnrl.data.targets import IGNORED, Boxes, digest, joined
from gnnrl.data.transform import Transform, augmented_with_masks
from gnnrl.errors import UserError

SHAPE = (1, 24, 24)
NONE = Transform((0.5,), (0.25,))


def canvases(targets: str, **wishes: object) -> Images:
    recipe = DataRecipe(**{"name": "digit_canvas", "reward_images": 50, **wishes})
    found = load_data(recipe, SHAPE, targets).reward
    assert isinstance(found, Images)
    return found


def folder(root: Path, size: tuple[int, int] = (8, 8)) -> Path:
    """A folder of three images per split, the mask of each its left half."""
    (root / "classes.txt").write_text("wall\ndoor\n")
    for split in ("train", "test"):
        for i in range(3):
            pixels = np.full((size[1], size[0]), 40 * i, dtype=np.uint8)
            mask = np.zeros_like(pixels)
            mask[:, : size[0] // 2] = 1
            mask[0] = IGNORED
            for part, array in (("images", pixels), ("masks", mask)):
                (root / split / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / split / part / f"{i}.png")
    return root


def opened(root: Path, targets: str = "masks", **wishes: object) -> Images:
    recipe = {"name": "image_folder", "root": str(root), "reward_images": 1, **wishes}
    found = load_data(DataRecipe(**recipe), (1, 4, 4), targets).train
    found.fingerprint()
    assert isinstance(found, Images)
    return found


def test_canvases_are_the_same_every_time_and_masks_and_boxes_tell_of_the_same_digits():
    masks, boxes = canvases("masks"), canvases("boxes")
    assert torch.equal(masks.pixels, boxes.pixels)
    assert canvases("masks").fingerprint() == masks.fingerprint() != boxes.fingerprint()
    assert isinstance(boxes.labels, Boxes) and len(boxes.labels) == len(masks) == 50
    for mask, pixels, found, classes in zip(
        masks.labels, masks.pixels, boxes.labels.boxes, boxes.labels.labels, strict=True
    ):
        rebuilt = torch.zeros_like(mask)
        for (left, top, right, bottom), label in zip(found.int().tolist(), classes, strict=True):
            inside = mask[top:bottom, left:right]
            edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all((edge == label).any() for edge in edges), "a box is as tight as can be"
            rebuilt[top:bottom, left:right] = torch.where(inside == label, inside, 0)
        assert torch.equal(rebuilt, mask) and 1 <= len(found) <= 3
        assert (pixels[0][mask > 0] >= INK).all() and (pixels[0][mask == 0] < 255).all()


def test_test_canvases_show_other_digits_and_every_class_occurs():
    splits = load_data(DataRecipe("digit_canvas", reward_images=50), SHAPE, "masks")
    assert splits.sizes() == {"train": 1950, "reward": 50, "test": 500}
    assert (
        set(splits.test.labels.unique().tolist())
        == set(range(11))
        == set(range(len(splits.classes)))
    )


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
def test_a_mask_moves_with_its_image_and_what_comes_in_has_no_class(name):
    masks = torch.randint(0, 200, (40, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    pixels = (masks + 1)[:, None].expand(-1, 3, -1, -1)  # 0 is what comes in from outside
    how, draw = AUGMENTATIONS[name], torch.Generator().manual_seed(1)
    moved, followed = augmented_with_masks(pixels, masks, how, draw)
    outside = moved[:, 0] == 0
    assert outside.any() and (followed[outside] == IGNORED).all()
    assert torch.equal(followed[~outside] + 1, moved[:, 0][~outside])
    assert not torch.equal(moved[:, :1], pixels[:, :1])


def test_training_batches_bring_moved_masks():
    images = canvases("masks", augmentation="crop")
    draw = torch.Generator().manual_seed(0)
    x, masks = next(images.batches(50, generator=draw, augment=True))
    assert (masks == IGNORED).any() and x.shape == (50, 1, 24, 24)
    grey = (x * torch.tensor(images.transform.std) + torch.tensor(images.transform.mean)) * 255
    assert (grey[:, 0][(masks > 0) & (masks != IGNORED)] >= INK - 1).all()


def test_boxes_can_be_taken_joined_and_told_apart():
    boxes = canvases("boxes").labels
    assert isinstance(boxes, Boxes)
    some = boxes[torch.tensor([3, 1])]
    assert torch.equal(some.boxes[0], boxes.boxes[3]) and len(boxes[1::2]) == 25
    both = joined([boxes[:3], boxes[3:]])
    assert digest(both) == digest(boxes) != digest(some)


def test_a_folder_of_images_and_masks_is_scaled_and_cut_alike(tmp_path):
    images = opened(folder(tmp_path, size=(16, 8)))  # twice as wide as high: the middle is cut out
    assert images.labels.shape == (2, 4, 4) and images.labels.dtype == torch.uint8
    assert (images.labels[:, 1:, :2] == 1).all() and (images.labels[:, 1:, 2:] == 0).all()


def test_a_folder_without_labels_needs_no_classes(tmp_path):
    root = folder(tmp_path)
    splits = load_data(DataRecipe("image_folder", str(root), reward_images=2), (1, 4, 4), "none")
    assert splits.num_classes == 0 and splits.sizes() == {"train": 4, "reward": 2, "test": 6}


def test_own_arrays_with_masks_and_boxes_are_scaled_with_the_images(tmp_path):
    mask = torch.zeros(6, 4, 4, dtype=torch.uint8)
    mask[:, :2] = 1
    boxes = Boxes((torch.tensor([[1.0, 0.0, 3.0, 2.0]]),) * 6, (torch.tensor([1]),) * 6)
    for kind, targets in (("masks", mask), ("boxes", boxes)):
        read = lambda split, t=targets: (torch.zeros(6, 1, 4, 4, dtype=torch.uint8), t)  # noqa: E731
        listing = array_source("own", ("a", "b"), read, (1, 8, 8), NONE, kind).train()
        found = listing.read(torch.arange(2)).labels
        if isinstance(found, Boxes):
            assert found.boxes[0].tolist() == [[2.0, 0.0, 6.0, 4.0]]
        else:
            assert (found[:, :4] == 1).all() and (found[:, 4:] == 0).all()


def colours(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "train" / "masks" / "1.png")


def other_size(root: Path) -> None:
    Image.new("L", (8, 9)).save(root / "train" / "masks" / "1.png")


def unknown_class(root: Path) -> None:
    Image.new("L", (8, 8), 7).save(root / "train" / "masks" / "1.png")


def broken(root: Path) -> None:
    (root / "train" / "masks" / "1.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: (r / "train/masks/1.png").unlink(), "1 of 3 images .* have no mask .*1.png"),
        (lambda r: (r / "test/images/2.png").unlink(), "1 of 3 masks .* have no image"),
        (lambda r: (r / "classes.txt").unlink(), "classes.txt cannot be read"),
        (lambda r: (r / "classes.txt").write_text("wall\n"), "has 1 classes .wall.: expected at"),
        (unknown_class, r"1.png: a label is 7, expected 0 to 1 for 2 classes, or 255"),
        (colours, "1.png is of the kind RGB"),
        (other_size, "has 8x9 pixels, its image 8x8"),
        (broken, "1.png cannot be read"),
    ],
)
def test_what_is_wrong_with_masks_is_one_sentence(tmp_path, spoil, said):
    spoil(folder(tmp_path))
    with pytest.raises(UserError, match=said) as caught:
        opened(tmp_path, reward_from="test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "targets", "said"),
    [
        ({"name": "digits"}, "masks", "digits has classes, the task needs masks.*digit_canvas"),
        ({"name": "digit_canvas"}, "classes", "has masks or boxes, the task needs classes"),
        ({"name": "digit_canvas", "augmentation": "crop"}, "boxes", "not their boxes"),
        ({"name": "digit_canvas", "augmentation": "resized_crop_flip"}, "masks", "not their masks"),
    ],
)
def test_a_data_set_without_the_targets_of_the_task_is_refused(recipe, targets, said):
    with pytest.raises(UserError, match=said):
        load_data(DataRecipe(**recipe), SHAPE, targets)


def test_labels_out_of_range_and_canvases_that_are_too_small_are_refused():
    read = lambda split: (torch.zeros(2, 1, 4, 4).byte(), torch.tensor([0, 2]))  # noqa: E731
    with pytest.raises(UserError, match="own, train images: a label is 2, expected 0 to 1"):
        array_source("own", ("a", "b"), read, (1, 4, 4), NONE).train()
    with pytest.raises(UserError, match="at least 24x24"):
        load_data(DataRecipe("digit_canvas"), (1, 16, 16), "masks")
