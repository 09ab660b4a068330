"""The task of one's own, as docs/tasks.md shows it, from pretraining to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gnnrl.data.load import load_data
from gnnrl.data.settings import DataRecipe
from gnnrl.networks.build import build_network
from gnnrl.tasks.registry import build_task
from gnnrl.training.distillation import Objective
from gnnrl.training.evaluate import evaluate
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe
from stages.__main__ import STAGES
from tests.docs.pages import ROOT, snippets
from tests.stage_runs import run

PAGE = ROOT / "docs" / "tasks.md"
SMALL = (
    "network.name=basic_cnn_eighth",
    "network.input_shape=[1, 20, 20]",
    "data.reward_images=200",
    "pretrain.recipe.epochs=3",
    "pretrain.recipe.learning_rate=0.003",
    "pretrain.snapshots=[]",
    "search.evaluations=2",
    "search.batch=4",
    "train.recipe.epochs=1",
    "train.recipe.learning_rate=0.003",
    "evaluate.latency_rounds=1",
)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder to work in with the module of the page, whose task's name is returned."""
    (module,) = [snippet for snippet in snippets(PAGE, "python") if snippet.file]
    path = tmp_path / str(module.file)
    path.parent.mkdir()
    path.write_text(module.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    for name in ("mine", "mine.regression"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return "mine.regression:Regression"


def test_the_task_of_the_page_is_learned(mine):
    task = build_task(mine)
    splits = load_data(DataRecipe("digits", reward_images=200), (1, 8, 8), task.targets)
    network = build_network("resnet20", 10, (1, 8, 8))
    recipe = TrainingRecipe(epochs=2, batch_size=32, learning_rate=0.003, augment=False)
    found = train(network, splits.train, recipe, objective=Objective(task))
    assert found.history[1]["explained"] > found.history[0]["explained"]
    assert 0.3 < evaluate(network, splits.reward, task=task).value < 1


@pytest.mark.slow
def test_the_task_of_the_page_runs_through_all_stages(mine, tmp_path):
    for stage in STAGES:
        run(stage, ROOT / "params.yaml", (*SMALL, f"task.name={mine}"))
    figures = json.loads(Path("artifacts/evaluate/metrics.json").read_text())["evaluate"]
    assert figures["metric"] == "explained" and figures["dense_explained"] > 0.2
    assert "explained" in Path("artifacts/report/report.html").read_text(encoding="utf-8")
    torch.use_deterministic_algorithms(False)
