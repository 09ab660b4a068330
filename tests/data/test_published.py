"""Data sets are downloaded once, checked, and read: here from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from gnnrl.data.load import DataRecipe, load_data
from gnnrl.errors import UserError

IMAGES = 20


def idx(values: np.ndarray) -> bytes:
    """A file of MNIST's format: a magic number, the sizes, the values."""
    sizes = np.array([0x800 + values.ndim, *values.shape], dtype=">i4")
    return gzip.compress(sizes.tobytes() + values.astype(np.uint8).tobytes())


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve small MNIST and SVHN files; gives the folder of the server."""
    folder = tmp_path / "server"
    folder.mkdir()
    rng, labels = np.random.default_rng(0), np.arange(IMAGES) % 10
    for name in ("train", "t10k"):
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
        pixels = rng.integers(0, 256, (IMAGES, 28, 28))
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
    for split in ("train", "test"):
        pixels = rng.integers(0, 256, (32, 32, 3, IMAGES), dtype=np.uint8)
        numbers = np.where(labels == 0, 10, labels)[:, None]  # there a zero is called ten
        savemat(folder / f"{split}_32x32.mat", {"X": pixels, "y": numbers})
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{served.server_port}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        names = [name for name, _ in datasets.MNIST.resources]
        monkeypatch.setattr(datasets.MNIST, "resources", [(n, md5(folder / n)) for n in names])
        splits = {
            split: [f"{address}{name}", name, md5(folder / name)]
            for split in ("train", "test")
            for name in (f"{split}_32x32.mat",)
        }
        monkeypatch.setattr(datasets.SVHN, "split_list", splits)
        yield folder
        served.shutdown()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_a_data_set_is_downloaded_once(name, server, tmp_path):
    recipe = DataRecipe(name=name, root=str(tmp_path / "data"), reward_images=10, download=True)
    first = load_data(recipe).test
    for path in server.iterdir():
        path.unlink()
    again = load_data(recipe).test
    assert torch.equal(first.pixels, again.pixels) and len(first) == IMAGES
    assert first.labels.tolist() == [i % 10 for i in range(IMAGES)]


def test_a_file_that_was_changed_on_its_way_is_refused(server, tmp_path):
    (server / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(IMAGES)))
    with pytest.raises(UserError, match="MNIST cannot be read"):
        load_data(DataRecipe(name="mnist", root=str(tmp_path / "data"), download=True))


def test_what_cannot_be_downloaded_says_what_can(tmp_path):
    with pytest.raises(UserError, match="image_folder cannot be downloaded, only cifar10"):
        load_data(DataRecipe(name="image_folder", root=str(tmp_path), download=True))
