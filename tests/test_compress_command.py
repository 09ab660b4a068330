"""`python -m stages.compress`: one command for a trained network of one's own."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import gnnrl
from gnnrl.errors import UserError
from gnnrl.graph.latency import LatencyTable
from gnnrl.measurement import latency, runtimes
from stages import _own
from stages.compress import app
from tests.stage_runs import EXPERIMENTS, outcome, preset


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
        "--set network.input_shape=[3,8,8] --set search.evaluations=1 --set train.recipe.epochs=1 "
        "--set evaluate.latency_rounds=2"
    )
    result = CliRunner().invoke(app, [*given, *small.split(), *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def measured(checkout: Path) -> dict[str, dict]:
    """Return what evaluate measured of speed, by runtime."""
    return json.loads((checkout / "artifacts/evaluate/latency.json").read_text())["runtimes"]


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
    assert (
        "speed: measured in torch, onnxruntime; the headline's is that of torch at batch 1" in said
    )
    assert list(measured(checkout)) == ["torch", "onnxruntime"]
    headline = next(line for line in said.splitlines() if line.startswith("report: "))
    assert "at batch 1 in torch," in headline and "asked)" in headline and "accuracy" in headline
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
        (
            compress("--flops", "0.5", "--set", "network.input_shape=[1,8,8]"),
            "network.input_shape is [1, 8, 8]: the runtime torch cannot run this network",
        ),
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


def test_a_budget_of_latency_is_of_what_evaluate_measures_first(checkout, monkeypatch):
    monkeypatch.setattr(latency, "WARM", 0.0)  # it is not about speed
    (checkout / ".dvc").mkdir()
    asked = ["--set", "evaluate.latency_runtimes=[onnxruntime, torch]"]
    code, said = compress("--latency", "1.0", *asked, "--set", "search.evaluations=12")
    assert code == 0, said
    assert f"without DVC, which cannot run them here (ERROR: {checkout} is not a git" in said
    assert "operations at 1 images in onnxruntime" in said
    figures = json.loads((checkout / "artifacts/search/metrics.json").read_text())["search"]
    assert 0 < figures["latency_kept"] <= 1.0
    scored = list(csv.DictReader((checkout / "artifacts/search/rescored.csv").open()))
    assert figures["reward"] == pytest.approx(max(float(row["reward"]) for row in scored))
    assert list(measured(checkout)) == ["onnxruntime", "torch"]
    assert re.search(r"^report: .* at batch 1 in onnxruntime, ", said, re.MULTILINE)


NAMED = [f"network.name={__name__}:own", "pretrain.weights=my.pth"]
NAMED += ["data.root=photos", "network.input_shape=[3,8,8]"]


def test_a_table_of_the_users_own_is_measured_first(checkout, capsys):
    table = LatencyTable({}, 4, "here", "torch_channels_last", threads=2)
    table.save("inputs/search/mine.json")
    budget = ["search.budget.flops=null", "search.budget.latency=0.5"]
    found = _own.checked([*NAMED, *budget, "search.latency_table=inputs/search/mine.json"])
    assert found == [
        "data.reward_images=6",
        "evaluate.latency_runtimes=['torch_channels_last', 'torch', 'onnxruntime']",
        "evaluate.latency_batches=[4, 1, 64]",
        "evaluate.latency_threads=2",
    ]
    assert "the headline's is that of torch_channels_last at batch 4" in capsys.readouterr().out


def test_a_runtime_that_is_not_there_is_left_out_and_said(checkout, capsys, monkeypatch):
    known = runtimes.find_spec
    absent = lambda name: None if name == "onnxruntime" else known(name)  # noqa: E731
    monkeypatch.setattr(runtimes, "find_spec", absent)
    assert "evaluate.latency_runtimes=['torch']" in _own.checked(NAMED)
    assert "speed: the runtime onnxruntime is not installed" in capsys.readouterr().out
    with pytest.raises(UserError, match="the runtime onnxruntime is not installed"):
        _own.checked([*NAMED, "evaluate.latency_runtimes=[onnxruntime]"])
    with pytest.raises(UserError, match=r"'evaluate.latency_runtimes' is empty, so no speed"):
        _own.checked([*NAMED, "evaluate.latency_runtimes=[]"])


def test_what_the_export_needs_is_asked_for_at_once(checkout, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, said = compress("--flops", "0.5")
    assert code == 1 and said.startswith("compress: the export needs onnxscript: pip install")
    _, said = outcome("evaluate", preset("digits"), (), "--dense", "no", "--subnet", "no")
    assert said.startswith("evaluate: the export needs onnxscript")


def test_python_needs_no_more_than_a_call(checkout, monkeypatch):
    monkeypatch.setattr(latency, "WARM", 0.001)
    network = own(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    size = {"input_shape": (3, 8, 8), "evaluations": 1, "epochs": 1}
    found = gnnrl.compress(network, "photos", budget=0.5, **size)
    assert found.figures["flops_kept"] <= 0.5
    assert found.network(torch.zeros(2, 3, 8, 8)).shape == (2, 2)
    assert list(found.speed) == ["torch", "onnxruntime"] and min(found.speed.values()) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match=r"got str as network, expected a trained torch.nn.Module"):
        gnnrl.compress("resnet18", "photos")
    with pytest.raises(UserError, match=r"unknown key 'speed'; .*flops, parameters"):
        gnnrl.compress(network, "photos", resource="speed")
    with pytest.raises(UserError, match=r"^got resource latency, expected flops or parameters: "):
        gnnrl.compress(network, "photos", resource="latency")
