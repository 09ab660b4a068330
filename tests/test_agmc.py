"""AGMC's presets start as they are written, on a small network and a few images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from tests import tiny
from tests.stage_runs import preset, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    yield from tiny.alone_with_dense(tmp_path, monkeypatch)


SMALL = [
    *(setting for setting in tiny.SETTINGS if setting.startswith(("data.", "network."))),
    "search.evaluations=4",
    "search.reward.precision=float32",
    "search.gnn.hidden=8",
    "search.ddpg.max_updates=2",
    "search.controls=false",
]


@pytest.mark.parametrize("agent", ["ddpg", pytest.param("ppo", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name, budget, decisions",
    [("agmc-resnet56-cifar10-50", 0.5, 2), ("agmc-vgg16-imagenet-20", 0.2, 3)],
)
def test_the_preset_starts_and_decides_one_group_per_step(name, budget, decisions, agent, folder):
    out, settings = folder / "search", [*SMALL, f"search.agent={agent}"]
    where = ["--pretrain", folder, "--graph", folder / "graph.json", "--out", out]
    run("search", preset(name), settings, *where)
    graph = ComputationalGraph.load(folder / "graph.json")
    plan = PruningPlan.load(out / "plan.json")
    assert 0 < cost(graph, plan).flops / cost(graph).flops <= budget
    assert bool(plan.weight_sparsity) == (decisions == 3)
    with (out / "evaluations.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows and {int(row["steps"]) for row in rows} == {decisions}
    state = torch.load(out / "agent.pt", weights_only=True)
    weights = state["nets"] if agent == "ddpg" else state["policy"]
    assert any(".decoder.cell." in key for key in weights)
