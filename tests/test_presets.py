"""Every preset starts: on a few images made in its data set's own file format."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.params import check, read_yaml
from gnnrl.pruning.plan import PruningPlan

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "experiments").glob("*.yaml"))

pytestmark = pytest.mark.slow


def cifar10(root: Path) -> None:
    """Write CIFAR-10's pickled batches with 40 images each."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        images = random.integers(0, 256, (40, 3072), dtype=np.uint8)
        batch = {"data": images, "labels": [i % 10 for i in range(40)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": [f"class {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))


def folders(root: Path, splits: tuple[str, str], suffix: str) -> None:
    """Write 40 images of each of three classes for training, and 20 for tests."""
    random = np.random.default_rng(0)
    for split, count in zip(splits, (40, 20), strict=True):
        for label in ("n01440764", "n01443537", "n01484850"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (80, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.{suffix}")


def make(name: str, root: Path) -> None:
    """Write a few images as the data set called `name` has them."""
    if name == "cifar10":
        cifar10(root)
    elif name == "imagenet":
        folders(root, ("train", "val"), "JPEG")
    elif name == "image_folder":
        folders(root, ("train", "test"), "png")


def run(stage: str, words: list[str]) -> None:
    result = CliRunner().invoke(importlib.import_module(f"stages.{stage}").app, words)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_starts(path, tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    params = check(read_yaml(path))
    make(params.data.name, tmp_path / "data")
    size = 64 if params.data.name == "imagenet" else 32
    settings = {
        "data.root": tmp_path / "data",
        "data.reward_images": 24,
        "network.input_shape": [3, size, size],
        "pretrain.weights": None if params.data.name != "digits" else params.pretrain.weights,
        "pretrain.recipe.epochs": 0,
        "pretrain.recipe.warmup_epochs": 0,
        "pretrain.snapshots": [],
        "search.calibration_images": 32,
        "search.evaluations": 1,
        "search.batch": 8,
        "prune.calibration_images": 32,
    }
    words = ["--params", str(path)]
    for key, value in settings.items():
        words += ["--set", f"{key}={'null' if value is None else value}"]
    dense, graph = tmp_path / "pretrain", tmp_path / "extract" / "graph.json"
    run("pretrain", [*words, "--out", str(dense)])
    final = str(dense / "final.safetensors")
    run("extract", [*words, "--network", final, "--out", str(graph.parent)])
    known = ["--pretrain", str(dense), "--graph", str(graph)]
    run("search", [*words, *known, "--out", str(tmp_path / "search")])
    plan = tmp_path / "search" / "plan.json"
    run("prune", [*words, *known, "--plan", str(plan), "--out", str(tmp_path / "prune")])
    read = ComputationalGraph.load(graph)
    kept = cost(read, PruningPlan.load(plan)).flops / cost(read).flops
    assert kept <= params.search.budget.flops
