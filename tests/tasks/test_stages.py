"""Tasks from the images to the report; what does not suit is said before anything is computed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gnnrl.checkpoint import Checkpoint
from gnnrl.networks.build import build_network
from stages.__main__ import STAGES
from tests.stage_runs import outcome, preset, run

SMALL = (
    "data.reward_images=40",
    "search.evaluations=3",
    "search.batch=4",
    "search.calibration_images=40",
    "train.recipe.epochs=1",
    "evaluate.latency_rounds=1",
)
UNTRAINED = ("pretrain.recipe.epochs=0", "pretrain.snapshots=[]")
SEGMENTS = (
    *SMALL,
    "network.input_shape=[1, 24, 24]",
    "pretrain.recipe.epochs=1",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def metrics(stage: str) -> dict[str, float]:
    return json.loads(Path(f"artifacts/{stage}/metrics.json").read_text())[stage]


def photos(root: Path) -> Path:
    """Images without labels in train and test."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 60)):
        (root / split).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(256, size=(16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{i}.png")
    return root


def weights(name: str, classes: int, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    torch.save(build_network(name, classes, shape).state_dict(), "weights.pt")


@pytest.mark.slow
def test_a_segmentation_network_goes_through_all_stages_and_its_metric_keeps_its_name():
    for stage in STAGES:
        run(stage, preset("unet-digits"), SEGMENTS)
    figures = metrics("evaluate")
    assert figures["metric"] == "mean_iou" and figures["flops_kept"] <= 0.5
    assert 0 < figures["mean_iou"] < 1 and "accuracy" not in figures
    assert figures["mean_iou_change"] == figures["mean_iou"] - figures["dense_mean_iou"]
    for stage in ("pretrain", "search", "prune", "train"):
        assert 0 < metrics(stage)["reward_mean_iou"] < 1
    assert "reward_mean_iou_before_repair" in metrics("prune")
    with open("artifacts/search/evaluations.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(-math.log(2) <= float(row["reward"]) < 0 for row in rows)
    assert all(0 <= float(row["mean_iou"]) < 1 for row in rows)
    with open("artifacts/report/networks.csv", encoding="utf-8") as file:
        assert [row["metric"] for row in csv.DictReader(file)] == ["mean_iou", "mean_iou"]
    page = Path("artifacts/report/report.html").read_text(encoding="utf-8")
    assert "mean IoU on test images" in page and "accuracy" not in page.lower()
    subnet = Checkpoint.load("artifacts/train/subnet.safetensors").restore()
    assert subnet(torch.zeros(1, 1, 24, 24)).shape == (1, 11, 24, 24)


@pytest.mark.slow
def test_a_network_without_labels_goes_through_all_stages(folder):
    photos(folder / "photos")
    weights("resnet20", 6, (3, 16, 16))
    asked = (
        *SMALL,
        "data.root=photos",
        "network.name=resnet20",
        "network.input_shape=[3, 16, 16]",
        "network.num_classes=6",
        "pretrain.weights=weights.pt",
        "search.budget.flops=0.7",
    )
    for stage in STAGES:
        run(stage, preset("outputs"), asked)
    assert metrics("pretrain")["reward_agreement"] == pytest.approx(1.0)
    figures = metrics("evaluate")
    assert figures["dense_agreement"] == pytest.approx(1.0)
    assert 0.5 < figures["agreement"] < 1.0
    history = list(csv.DictReader(Path("artifacts/train/history.csv").open(encoding="utf-8")))
    assert float(history[0]["agreement"]) > 0.3  # of the subnet with its teacher


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("search.students={recipe: {epochs: 1}, distillation: {alpha: 0.5}}",),
        ("search.reward={kind: accuracy, training: {epochs: 0.2}}",),
        ("search.reward={kind: loss, race: 20}", "search.rescore={plans: 2, images: 20}"),
        ("search.importance=taylor", "search.prior=none", "search.reward={kind: cosine}"),
        ("search.importance=bottleneck", "search.prior=bottleneck", "search.bottleneck.batches=4"),
    ],
    ids=["students", "short training", "race and rescoring", "taylor", "bottleneck"],
)
def test_every_way_of_scoring_knows_the_task(settings):
    asked = (*SEGMENTS, "search.evaluations=8")
    run("pretrain", preset("unet-digits"), asked)
    run("extract", preset("unet-digits"), asked)
    run("search", preset("unet-digits"), (*asked, *settings))
    assert 0 <= metrics("search")["reward_mean_iou"] < 1


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("unet-digits", ("task.name=segmentatoin",), "did you mean segmentation?"),
        ("unet-digits", ("task.name=classification",), "has masks or boxes, the task needs"),
        ("unet-digits", ("network.name=resnet20",), "segmentation takes logits"),
        ("digits", ("task.name=segmentation",), "digits has classes, the task needs masks"),
        ("digits", ("task.name=outputs", *UNTRAINED), "reward.kind' is loss"),
        ("outputs", ("pretrain.recipe.epochs=1",), "no labels to train with"),
        ("outputs", ("train.distillation.alpha=0.5",), "train.distillation.alpha' is 0.5"),
        ("outputs", ("search.importance=taylor",), "'search.importance taylor' needs labels"),
        ("outputs", ("search.reward.race=10",), "'search.reward.race' needs labels"),
        ("outputs", ("data.root=photos",), "set network.num_classes"),
        ("outputs", ("data.root=nowhere", "network.num_classes=3"), "nowhere/train cannot be read"),
        ("digits", ("network.num_classes=3",), "num_classes is 3, but the data set has 10"),
    ],
)
def test_what_does_not_suit_the_task_is_said_in_one_sentence(folder, name, settings, said):
    photos(folder / "photos")
    code, message = outcome("pretrain", preset(name), (*SMALL, *settings))
    assert code == 1 and said in message and message.count("\n") == 1
    assert not Path("artifacts").exists()


def test_a_network_with_fewer_classes_than_the_masks_is_refused(folder):
    (folder / "few.py").write_text(
        "from gnnrl.networks.unet import UNet\n"
        "def few(num_classes, input_shape):\n    return UNet(5, input_shape, scale=0.25)\n"
    )
    settings = (*SEGMENTS, "network.name=few:few")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        code, message = outcome("pretrain", preset("unet-digits"), settings)
    assert code == 1 and "do not suit the labels" in message and message.count("\n") == 1


def test_a_network_that_takes_more_than_images_is_refused(folder):
    (folder / "two.py").write_text(
        "from torch import nn\n"
        "class Two(nn.Conv2d):\n    def forward(self, x, mask): return super().forward(x * mask)\n"
        "def two(num_classes, input_shape):\n    return Two(input_shape[0], num_classes, 1)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        code, message = outcome("pretrain", preset("digits"), (*SMALL, "network.name=two:two"))
    assert code == 1 and message.count("\n") == 1
    assert "does not take images [3, 32, 32] and nothing else (" in message and "mask" in message
    assert not Path("artifacts").exists()
