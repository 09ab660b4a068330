"""Anyone can prepare what the benchmarks read, and is told what is missing."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import data, harness

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, for images that are called cifar10-fragment."""
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    monkeypatch.setattr(data, "IMAGES", tmp_path / "data" / "cifar10-fragment")
    monkeypatch.setattr(data, "WEIGHTS", tmp_path / "data" / "weights")
    return tmp_path / "data"


def image_folder(root: Path) -> Path:
    for split in ("train", "test"):
        (root / split / "cat").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / split / "cat" / "0.png")
    return root


def test_the_fragment_is_the_first_images_of_each_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "BATCH", 5)
    monkeypatch.setattr(data, "FIRST", 2)
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    data.write(tmp_path / "train", pixels, ["cat"] * 10)
    found = {path.name: np.asarray(Image.open(path))[0, 0, 0] for path in tmp_path.rglob("*.png")}
    assert found == {"b1_00000.png": 0, "b1_00001.png": 1, "b2_00000.png": 5, "b2_00001.png": 6}


@pytest.mark.parametrize("packed", [False, True])
def test_images_of_this_machine_are_taken_packed_or_not(tmp_path, folder, packed):
    source = image_folder(tmp_path / "cifar10-fragment")
    if packed:
        with tarfile.open(tmp_path / "cifar10-fragment.tar.xz", "w:xz") as archive:
            for split in ("train", "test"):
                archive.add(source / split, split)
        source = tmp_path / "cifar10-fragment.tar.xz"
    data.local_images(source)
    assert len(list((folder / "cifar10-fragment").rglob("*.png"))) == 2


def test_what_is_no_image_folder_is_refused(tmp_path, folder):
    (tmp_path / "notes.tar").write_text("no archive")
    for name, said in {"notes.tar": "not a tar archive", "absent": "does not exist"}.items():
        with pytest.raises(SystemExit, match=said):
            data.local_images(tmp_path / name)
    with pytest.raises(SystemExit, match="holds neither cifar-10-batches-py nor"):
        data.local_images(tmp_path)


def test_other_weights_of_the_same_name_are_refused_and_removed(tmp_path, folder):
    for name in harness.PUBLISHED.values():
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(SystemExit, match="SHA-256"):
        data.weights(tmp_path)
    assert not list(folder.rglob("*.th"))


def test_missing_data_name_the_command_that_prepares_them(tmp_path):
    with pytest.raises(SystemExit, match="run `python -m benchmarks"):
        harness.load("resnet20", tmp_path / "images", tmp_path / "weights")


def test_a_run_that_has_its_row_is_known(tmp_path):
    path = tmp_path / "rows.csv"
    assert not harness.done(path, {"seed": 0})
    harness.append(path, {"network": "resnet20", "seed": 0, "accuracy": 0.5})
    assert harness.done(path, {"network": "resnet20", "seed": 0})
    assert not harness.done(path, {"network": "resnet20", "seed": 1})


def test_no_file_expects_data_beside_the_checkout():
    command = ["git", "grep", "-lE", r"\.\./" + "shared"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode > 1:
        pytest.skip("not a Git checkout")
    assert found.stdout == ""


def test_the_spread_of_plans_is_told_from_that_of_their_trainings():
    random = np.random.default_rng(0)
    plans = 2.0 * random.standard_normal((4000, 1))
    between, within = harness.components(plans + random.standard_normal((4000, 3)))
    assert between == pytest.approx(4.0, rel=0.1) and within == pytest.approx(1.0, rel=0.1)
    between, _ = harness.components(random.standard_normal((4000, 3)))
    assert between == pytest.approx(0.0, abs=0.05)
