"""Every preset starts as it is written, on a few images in its data set's own file format.

The presets name their images and weights by paths relative to the checkout, so each runs in a
folder made to look like one; nothing but sizes is overridden.
"""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision import models

from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import TORCHVISION, build_network
from gnnrl.params import presets
from gnnrl.pruning.plan import PruningPlan
from tests.stage_runs import EXPERIMENTS, run
from tests.stage_runs import preset as written

pytestmark = pytest.mark.slow

PRESETS = [
    name for name in presets.names(EXPERIMENTS) if name.startswith(("agmc-", "gnnrl-", "cifar10-"))
]
CLASSES = 10


@dataclass(frozen=True)
class Small:
    """How many images of a class a split has, what is overridden, how many plans are scored."""

    per_class: int
    settings: tuple[str, ...]
    plans: int


# An evaluation is 500 images. Of two, the first is for two plans which the agent learns from, the
# second for its greedy one; a look at 20 calibration images costs a quarter of one.
LEARNT = Small(
    26,
    ("data.reward_images=250", "search.evaluations=2", "search.calibration_images=20"),
    plans=3,
)
# One is for the greedy plan alone: more, or 224x224 pixels, are too slow on one core in bfloat16.
# From 64x64 on all four networks halve images as often as at 224x224.
GREEDY = Small(
    3,
    ("data.reward_images=20", "search.evaluations=1", "network.input_shape=[3, 64, 64]"),
    plans=1,
)
SMALL = {"cifar10": LEARNT, "image_folder": LEARNT, "imagenet": GREEDY}
LOOKS_LONGER = {"cifar10-vit": 2}  # plans; its calibration pass leaves no time for a third
# MobileNet-v1 is trained first: the five epochs in which its learning rate rises are the fewest.
SMALL_PRETRAINING = ("pretrain.recipe.epochs=5",)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def make_cifar10(root: Path, per_class: int) -> None:
    """Write the batches of the "python version", as torchvision unpacks them."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    labels = list(range(CLASSES)) * per_class
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {
            "batch_label": name,
            "labels": labels,
            "data": noise(seed, len(labels), 3072),
            "filenames": [f"{name}_{i:06}.png" for i in range(len(labels))],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    meta = {"num_cases_per_batch": len(labels), "label_names": names, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


def make_imagenet(root: Path, per_class: int) -> None:
    """Write train/<wnid>/<wnid>_<number>.JPEG and val/<wnid>/ILSVRC2012_val_<number>.JPEG."""
    for label in range(CLASSES):
        wnid = f"n{1440764 + label:08}"
        for split, prefix in (("train", wnid), ("val", "ILSVRC2012_val")):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(per_class):
                number = label * per_class + i
                height, width = ((75, 100), (100, 75))[i % 2]
                pixels = noise(number, height, width) if i == 0 else noise(number, height, width, 3)
                Image.fromarray(pixels).save(folder / f"{prefix}_{number:08}.JPEG")


def make_image_folder(root: Path, per_class: int) -> None:
    """Write train/<class>/<number>.png and test/<class>/<number>.png."""
    for split in ("train", "test"):
        for label in range(CLASSES):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(per_class):
                pixels = noise(label * per_class + i, 32, 32, 3)
                Image.fromarray(pixels).save(folder / f"{i:04}.png")


MAKERS: Mapping[str, Callable[[Path, int], None]] = {
    "cifar10": make_cifar10,
    "imagenet": make_imagenet,
    "image_folder": make_image_folder,
}


def make_weights(checkout: Path, network: Mapping[str, Any], weights: str) -> str:
    """Write fresh weights to a file and return its name: the preset's own, where it names one.

    In place of published weights, whose digest is checked, a file of the same form is used.
    """
    state = build_network(network["name"], CLASSES, tuple(network["input_shape"])).state_dict()
    if network["name"].startswith(TORCHVISION):
        short = network["name"].removeprefix(TORCHVISION)
        path = checkout / Path(models.get_model_weights(short)[weights].url).name
        content = state
    else:  # as akamaster/pytorch_resnet_cifar10 saves them
        named = bool(Path(weights).suffix)
        path = checkout / (weights if named else f"{network['name']}.th")
        content = {"state_dict": {f"module.{key}": state[key] for key in state}, "best_prec1": 93.0}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return str(path.relative_to(checkout))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with scratch and PyTorch's cache beside it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    yield folder
    torch.use_deterministic_algorithms(False)
    shutil.rmtree(tmp_path)  # VGG-16 leaves 1.6 GB, which pytest would keep


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_starts_and_its_plan_uses_the_budget_up(name, checkout):
    preset = written(name)
    params = yaml.safe_load(preset.read_text())
    data, weights = params["data"], params["pretrain"]["weights"]
    small = SMALL[data["name"]]
    settings = (*small.settings, "search.controls=false")  # the plans are the agent's alone
    settings += ("data.download=false",)
    MAKERS[data["name"]](checkout / data["root"], small.per_class)
    if weights is None:
        settings += SMALL_PRETRAINING
    else:
        file = make_weights(checkout, params["network"], weights)
        settings = (*settings, f"pretrain.weights={file}")

    for stage in ("pretrain", "extract", "search"):
        run(stage, preset, settings)

    graph = ComputationalGraph.load(checkout / "artifacts" / "extract" / "graph.json")
    plan = PruningPlan.load(checkout / "artifacts" / "search" / "plan.json")
    budget = params["search"]["budget"]["flops"]
    assert 0.97 * budget <= cost(graph, plan).flops / cost(graph).flops <= budget
    with (checkout / "artifacts" / "search" / "evaluations.csv").open() as file:
        assert len(list(csv.DictReader(file))) == LOOKS_LONGER.get(name, small.plans)


def test_early_compression_starts_on_cifar10_and_trains_only_what_stays(checkout):
    preset = written("early-compression-cifar10")
    params = yaml.safe_load(preset.read_text())
    make_cifar10(checkout / params["data"]["root"], 4)
    settings = [
        "data.download=false",
        "data.reward_images=20",
        "pretrain.snapshots=[1]",
        "search.evaluations=1",
    ]
    for stage in ("pretrain", "train"):
        settings += [f"{stage}.recipe.epochs=1", f"{stage}.recipe.milestones=[1]"]
    for stage in ("pretrain", "extract", "search", "prune", "train"):
        run(stage, preset, settings)
    plan = PruningPlan.load(checkout / "artifacts" / "search" / "plan.json")
    stay = round((1 - params["search"]["budget"]["sparsity"]) * 960)
    assert sum(map(len, plan.kept.values())) == stay
    assert (checkout / "artifacts" / "train" / "subnet.safetensors").is_file()
