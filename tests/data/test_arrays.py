from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnrl.data.arrays import fitted
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.errors import UserError

PER_FILE = 12


def cifar_file(path: Path, labels: str, classes: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)
    values = {"data": data, labels: [i % classes for i in range(PER_FILE)]}
    path.write_bytes(pickle.dumps(values, protocol=2))


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        cifar_file(folder / name, "labels", 10)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return tmp_path


@pytest.fixture
def cifar100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        cifar_file(folder / name, "fine_labels", 100)
    names = [f"class {i}" for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    return tmp_path


@pytest.fixture
def fashion_mnist(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        header = np.array([0x803, PER_FILE, 28, 28], dtype=">i4").tobytes()
        pixels = bytes(range(PER_FILE)) * 28 * 28
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels)
        labels = np.array([0x801, PER_FILE], dtype=">i4").tobytes() + bytes([1, 2, 3] * 4)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "classes", "train"),
    [("cifar10", 10, 58), ("cifar100", 100, 10), ("fashion_mnist", 10, 10)],
)
def test_the_published_file_formats_are_read(name, classes, train, request):
    root = request.getfixturevalue(name)
    splits = load_data(DataRecipe(name, str(root), reward_images=2))
    assert splits.num_classes == classes
    assert splits.sizes() == {"train": train, "reward": 2, "test": PER_FILE}
    for images in (splits.train, splits.reward, splits.test):
        assert images.input_shape == (3, 32, 32)
        assert images.labels.max() < classes


def test_cifar_pixels_are_planes_of_red_green_and_blue(cifar10):
    with open(cifar10 / "cifar-10-batches-py" / "test_batch", "rb") as file:
        raw = pickle.load(file)["data"]
    pixels = load_data(DataRecipe("cifar10", str(cifar10), reward_images=2)).test.pixels
    assert pixels[0, 1, 0, 5] == raw[0, 1024 + 5]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"])
def test_a_missing_data_set_says_how_to_get_it(name, tmp_path):
    with pytest.raises(UserError, match=r"set data\.download to true"):
        _ = load_data(DataRecipe(name, str(tmp_path), reward_images=2)).train


def test_a_damaged_file_is_refused(cifar10):
    path = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match="CIFAR10 cannot be read"):
        _ = load_data(DataRecipe("cifar10", str(cifar10), reward_images=2)).train


def test_a_file_which_would_run_code_is_refused(cifar10):
    evil = b"cos\nsystem\n(S'true'\ntR."
    (cifar10 / "cifar-10-batches-py" / "data_batch_1").write_bytes(evil)
    with pytest.raises(UserError, match=r"os\.system does not belong"):
        _ = load_data(DataRecipe("cifar10", str(cifar10), reward_images=2)).train


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 5, 9)])
def test_images_are_fitted_to_the_network(shape):
    pixels = torch.full((2, 1, 8, 8), 50, dtype=torch.uint8)
    result = fitted(pixels, shape)
    assert tuple(result.shape[1:]) == shape and (result == 50).all()


def test_colours_become_grey_for_a_grey_network():
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert (fitted(white, (1, 8, 8)) == 255).all()
    with pytest.raises(UserError, match="takes 4"):
        fitted(white, (4, 8, 8))
