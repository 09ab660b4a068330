"""Rounds: a network is cut, trained, and cut again, by parameters alone."""

from __future__ import annotations

import json

import pytest
import torch

from gnnrl.checkpoint import Checkpoint
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from tests.test_stages import run

ROUNDS = ("search.budget.flops=0.3", "train.recipe.epochs=2")


def one_round(folder, weights):
    """All stages from these weights (None: from training) to the trained subnet."""
    start = ["--set", f"pretrain.weights={weights}", "--set", "pretrain.recipe.epochs=0"]
    start += ["--set", "pretrain.snapshots=[]"]
    dense, graph = folder / "pretrain" / "final.safetensors", folder / "extract" / "graph.json"
    plan, cut = folder / "search" / "plan.json", folder / "prune" / "subnet.safetensors"
    subnet = folder / "train" / "subnet.safetensors"
    source = ["--pretrain", folder / "pretrain", "--graph", graph]
    given = {
        "pretrain": [] if weights is None else start,
        "extract": ["--network", dense],
        "search": source,
        "prune": [*source, "--plan", plan],
        "train": ["--subnet", cut, "--teacher", dense],
        "evaluate": ["--dense", dense, "--subnet", subnet],
    }
    for stage, arguments in given.items():
        changes = [word for key in ROUNDS for word in ("--set", key)]
        run(stage, *changes, *arguments, "--out", folder / stage)
    return subnet


@pytest.mark.slow
def test_a_network_is_pruned_by_70_percent_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    first = one_round(tmp_path / "first", None)
    second = one_round(tmp_path / "second", first)
    twice = Checkpoint.load(second)
    assert len(twice.plans) == 2
    flops = [
        cost(ComputationalGraph.load(tmp_path / name / "extract" / "graph.json")).flops
        for name in ("first", "second")
    ]
    figures = json.loads((tmp_path / "second" / "evaluate" / "metrics.json").read_text())
    assert flops[1] <= 0.3 * flops[0]
    assert figures["evaluate"]["flops"] <= 0.3 * flops[1]
    answer = twice.restore().eval()(torch.zeros(2, 3, 8, 8))
    assert answer.shape == (2, 10) and bool(torch.isfinite(answer).all())
