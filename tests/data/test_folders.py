from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gnnrl.data import files, folders
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.errors import UserError

SHAPE = (3, 8, 8)
CLASSES = "cat", "dog"


def make(root: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8), suffix="png") -> Path:
    """Fill root/<split>/<class> with one-coloured images: red tells the split, green the class."""
    for red, (split, count) in enumerate(counts.items(), start=1):
        for green, name in enumerate(CLASSES, start=1):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                colour = np.array([100 * red, 100 * green, 20 * i], dtype=np.uint8)
                pixels = np.broadcast_to(colour, (size[1], size[0], 3))
                Image.fromarray(pixels).save(folder / f"{i}.{suffix}", quality=100)
    return root


@pytest.fixture
def root(tmp_path):
    return make(tmp_path / "images", {"train": 6, "test": 4})


def load(root: Path, name: str = "image_folder", shape=SHAPE, **wishes):
    return load_data(DataRecipe(name, str(root), **{"reward_images": 2, **wishes}), shape)


def test_images_and_labels_are_what_the_files_say(root):
    splits = load(root)
    assert splits.classes == CLASSES
    assert splits.sizes() == {"train": 10, "reward": 2, "test": 8}
    for name, red in (("train", 100), ("reward", 100), ("test", 200)):
        images = getattr(splits, name)
        assert (images.pixels[:, 0] == red).all()
        assert torch.equal(images.pixels[:, 1, 0, 0], ((images.labels + 1) * 100).to(torch.uint8))


def test_reward_images_may_come_from_the_test_images(root):
    splits = load(root, reward_from="test")
    assert splits.sizes() == {"train": 12, "reward": 2, "test": 6}
    assert (splits.reward.pixels[:, 0] == 200).all()


@pytest.mark.parametrize("origin", ["train", "test"])
def test_nobody_but_test_reads_the_test_split(root, origin, monkeypatch):
    read: list[Path] = []
    decode = files.Decoder.__call__

    def spy(self, path, part=None):
        read.append(path)
        return decode(self, path, part)

    monkeypatch.setattr(files.Decoder, "__call__", spy)
    splits = load(root, reward_from=origin)
    for images in (splits.train, splits.reward):
        list(images.batches(4))
    others, read[:] = set(read), []
    list(splits.test.batches(4))
    assert len(read) == splits.sizes()["test"] and others.isdisjoint(read)
    assert any("test" in path.parts for path in others) is (origin == "test")


def test_a_relative_root_stands_below_the_checkout(root, monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", str(root.parent))
    monkeypatch.chdir(tmp_path)
    assert len(load(Path("images")).test) == 8
    monkeypatch.setenv("WHERE", "images")
    assert len(load(Path("$WHERE")).test) == 8


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_other_sizes_are_cut_at_the_middle(tmp_path, suffix):
    root = make(tmp_path / suffix, {"train": 3, "test": 3}, size=(20, 10), suffix=suffix)
    images = load(root).test
    assert images.input_shape == SHAPE
    assert (images.pixels[:, 0].int() - 200).abs().max() <= 3  # JPEG is not exact


def test_grey_networks_get_grey_images(root):
    assert load(root, shape=(1, 8, 8)).train.input_shape == (1, 8, 8)


def test_folders_and_files_that_are_no_images_do_not_matter(root):
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / "notes.txt").write_text("nice cats")
    (root / "train" / "readme.md").write_text("about")
    with pytest.warns(UserWarning, match="1 files in .*cat are left out"):
        assert load(root).sizes()["train"] == 10


def remove_folder(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def remove_test(root: Path) -> None:
    (root / "test").rename(root / "tests")


def empty_class(root: Path) -> None:
    for path in (root / "train" / "dog").iterdir():
        path.unlink()


def remove_class(root: Path) -> None:
    (root / "test" / "dog").rename(root / "dog")


def add_class(root: Path) -> None:
    (root / "train" / "dog").rename(root / "train" / "wolf")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove_folder, "no image folder .*images: expected"),
        (remove_test, r"images/test cannot be read"),
        (empty_class, "class 'dog' in .*train holds no images"),
        (remove_class, "class 'dog' has no folder in .*test"),
        (add_class, "class 'wolf' has no folder in .*test"),
    ],
)
def test_folders_that_do_not_do_are_refused(damage, said, root):
    damage(root)
    with pytest.raises(UserError, match=said):
        load(root)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_corrupt_image_is_named(root, content):
    (root / "test" / "cat" / "2.png").write_bytes(content)
    with pytest.raises(UserError, match=r"test/cat/2\.png cannot be read"):
        _ = load(root).test


def test_a_truncated_image_is_named(root):
    path = root / "test" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(UserError, match=r"test/dog/1\.png cannot be read"):
        _ = load(root).test


@pytest.fixture
def imagenet(tmp_path):
    return make(tmp_path / "imagenet", {"train": 6, "val": 4}, size=(40, 30), suffix="JPEG")


def test_imagenet_streams_what_it_trains_on_and_holds_what_it_measures_with(imagenet):
    splits = load(imagenet, "imagenet", (3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    batches = list(splits.train.batches(4, generator=generator, augment=True))
    assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 16, 16)] * 2 + [(2, 3, 16, 16)]
    assert torch.cat([labels for _, labels in batches]).bincount().tolist() == [5, 5]
    assert not hasattr(splits.train, "pixels") and hasattr(splits.reward, "pixels")


def test_streamed_images_repeat_with_their_generator(imagenet):
    images = load(imagenet, "imagenet", (3, 16, 16)).train

    def served(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([x for x, _ in images.batches(4, generator=generator, augment=True)])

    assert torch.equal(served(1), served(1))
    assert not torch.equal(served(1), served(2))


def test_streamed_images_measure_like_those_in_memory(imagenet, monkeypatch):
    held = load(imagenet, "imagenet", (3, 16, 16)).test
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    streamed = load(imagenet, "imagenet", (3, 16, 16)).test
    assert not hasattr(streamed, "pixels")
    for (x, labels), (same, too) in zip(held.batches(3), streamed.batches(3), strict=True):
        assert torch.equal(x, same) and torch.equal(labels, too)
    assert streamed.fingerprint() != streamed.take(torch.tensor([0, 1])).fingerprint()
