"""`python -m stages.compress`: one command for a trained network of one's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import gnnrl
from gnnrl.errors import UserError
from stages.compress import app
from tests.stage_runs import EXPERIMENTS


def own(num_classes: int) -> nn.Module:
    """A network of the user's own."""
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)]
    return nn.Sequential(conv, nn.ReLU(), head, nn.ReLU(), *pooled)


def no_module() -> str:
    """No network."""
    return "no network"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the presets, images of two classes and weights; no Git and no DVC."""
    shutil.copytree(EXPERIMENTS, tmp_path / "experiments")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = draw.integers(0, 255, (12, 10, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    torch.save(own(2).state_dict(), tmp_path / "my.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


def compress(*words: str, network: str = "own", images: str = "photos") -> tuple[int, str]:
    """Return the exit code and everything that was printed."""
    given = ["--network", f"{__name__}:{network}", "--weights", "my.pth", "--images", images]
    small = (
        "--set network.input_shape=[3,8,8] --set search.evaluations=1 --set train.recipe.epochs=1"
    )
    result = CliRunner().invoke(app, [*given, *small.split(), *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_one_command_writes_the_parameters_runs_the_stages_and_prints_the_result(checkout):
    code, said = compress("--flops", "0.5")
    assert code == 0, said
    assert "wrote params.yaml" in said
    assert "12 to train, 12 to test, 2 classes; 6 of the test images score the search" in said
    assert "scaled to cover 8 x 8 and cut at the middle; mean 0.485, 0.456, 0.406" in said
    stages = ("pretrain", "extract", "search", "prune", "train", "evaluate", "report")
    assert [line.split(":")[0] for line in said.splitlines() if " -> artifacts/" in line] == [
        *stages
    ]
    assert "asked)" in said.splitlines()[-1] and "accuracy" in said.splitlines()[-1]
    for name in ("report/report.html", "evaluate/subnet.onnx", "evaluate/subnet.pt2"):
        assert (checkout / "artifacts" / name).exists()


def test_bad_input_is_one_sentence_before_anything_is_computed(checkout):
    (checkout / "empty").mkdir()
    for split in ("train", "test"):
        (checkout / "classless" / split).mkdir(parents=True)
    cases = [
        (compress("--flops", "0.5", "--latency", "0.5"), "got --flops and --latency"),
        (compress(), "got none: give exactly one of"),
        (compress("--flops", "0.5", images="empty"), "cannot be read"),
        (compress("--flops", "0.5", images="classless"), "has no folders in it, one per class"),
        (compress("--flops", "0.5", images="nowhere"), "there is no image folder"),
        (compress("--flops", "0.5", network="no_module"), "no_module"),
        (compress("--flops", "0.5", "--set", "pretrain.weights=no.pth"), "there is no file no.pth"),
    ]
    (checkout / "params.yaml").write_text("data: {seed: 7}\n")
    cases.append((compress("--flops", "0.5"), "neither committed nor a preset's"))
    for (code, said), expected in cases:
        assert code == 1 and expected in said.splitlines()[-1], said
    assert not (checkout / "artifacts").exists()


def test_changes_in_a_repository_are_not_overwritten(checkout):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], check=True, capture_output=True)

    (checkout / "params.yaml").write_text("data: {seed: 7}\n")
    git("init")
    git("add", "params.yaml")
    git("commit", "-m", "mine")
    (checkout / "params.yaml").write_text("data: {seed: 8}\n")
    code, said = compress("--flops", "0.5")
    assert code == 1
    assert "params.yaml has changes that are neither committed" in said.splitlines()[-1]
    assert (checkout / "params.yaml").read_text() == "data: {seed: 8}\n"
    assert not (checkout / "artifacts").exists()


def test_a_budget_of_latency_is_measured_for_single_images(checkout):
    code, said = compress("--latency", "1.0")
    assert code == 0, said
    assert "operations at 1 images" in said
    figures = json.loads((checkout / "artifacts/search/metrics.json").read_text())["search"]
    assert 0 < figures["latency_kept"] <= 1.0


def test_python_needs_no_more_than_a_call(checkout):
    network = own(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    size = {"input_shape": (3, 8, 8), "evaluations": 1, "epochs": 1}
    found = gnnrl.compress(network, "photos", budget=0.5, **size)
    assert found.figures["flops_kept"] <= 0.5
    assert found.network(torch.zeros(2, 3, 8, 8)).shape == (2, 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match=r"got str as network, expected a trained torch.nn.Module"):
        gnnrl.compress("resnet18", "photos")
    with pytest.raises(UserError, match=r"unknown key 'speed'; .*flops, parameters"):
        gnnrl.compress(network, "photos", resource="speed")
