"""The preset n2n starts as it is written, and its second step needs parameters only."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from gnnrl.checkpoint import Checkpoint
from gnnrl.pruning.plan import PruningPlan
from tests import stage_runs

pytestmark = pytest.mark.slow

PRESET = stage_runs.preset("n2n")
SHORT = ("pretrain.recipe.epochs=2", "train.recipe.epochs=1", "search.students.keep=1")
FEW = ("search.evaluations=5", "search.batch=2", "search.students.recipe.epochs=1")


def run(stage: str, *settings: str, preset: Path = PRESET) -> None:
    stage_runs.run(stage, preset, settings)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return folder


def test_layers_go_students_are_kept_and_what_remains_is_shrunk(checkout):
    controller = "search.encoder=encoder_decoder", "search.kernels=true"
    for stage in ("pretrain", "extract", "search", "prune", "train"):
        run(stage, *SHORT, *FEW, *controller)
    search = checkout / "artifacts" / "search"
    plan = PruningPlan.load(search / "plan.json")
    assert plan.removed_layers and plan.kernels and not plan.kept
    table = rows(search / "evaluations.csv")
    assert {"reward", "x_factor", "accuracy", "dir"} <= set(table[0])
    rewards = [float(row["reward"]) for row in table if not row["control"]]
    assert rewards == sorted(rewards, reverse=True)
    kept = [row["dir"] for row in table if row["dir"]]
    assert sorted(kept) == sorted(path.name for path in (search / "students").iterdir())
    student = Checkpoint.load(search / "students" / table[0]["dir"] / "student.safetensors")
    best = student.restore()
    pruned = Checkpoint.load(checkout / "artifacts" / "prune" / "subnet.safetensors")
    assert pruned.digest == student.digest, "the trained student goes on"
    found = json.loads((search / "metrics.json").read_text())["search"]
    dense = Checkpoint.load(checkout / "artifacts" / "pretrain" / "final.safetensors").restore()
    whole = sum(p.numel() for p in dense.parameters())
    parameters = sum(p.numel() for p in best.parameters())
    assert parameters / whole == pytest.approx(found["parameters_kept"])

    reduced = checkout / "reduced.safetensors"
    reduced.write_bytes((checkout / "artifacts" / "train" / "subnet.safetensors").read_bytes())
    second = (
        "pretrain.weights=reduced.safetensors",
        "pretrain.recipe.epochs=0",
        "search.space=channels",
        "search.budget.parameters=0.5",
    )
    for stage in ("pretrain", "extract", "search", "prune"):
        run(stage, *FEW, *second)
    checkpoint = Checkpoint.load(checkout / "artifacts" / "prune" / "subnet.safetensors")
    assert len(checkpoint.plans) == 2
    shrunk = checkpoint.restore()
    assert sum(p.numel() for p in shrunk.parameters()) <= 0.5 * parameters
    assert shrunk(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_preset_of_the_example_starts_on_other_images(checkout):
    small = (
        "data.name=digits",
        "data.download=false",
        "data.reward_images=300",
        "network.input_shape=[3, 8, 8]",
        "pretrain.recipe.epochs=1",
        "search.evaluations=8",  # controls are among them
        "search.batch=1",
        "search.students.recipe.epochs=1",
    )
    for stage in ("pretrain", "extract", "search"):
        run(stage, *small, preset=stage_runs.preset("n2n-cifar10"))
    table = rows(checkout / "artifacts" / "search" / "evaluations.csv")
    assert 0 < len(table) <= 8
    assert max(float(row["x_factor"]) for row in table) > 1


def test_a_killed_search_keeps_its_best_students(checkout, monkeypatch):
    for stage in ("pretrain", "extract"):
        run(stage, *SHORT)
    run("search", *SHORT, *FEW)
    whole = (checkout / "artifacts" / "search" / "evaluations.csv").read_text()
    from gnnrl.evaluation.distilled import Students

    real, calls = Students.evaluate, []

    def stop_after_two(self: Students, plan: PruningPlan):
        calls.append(plan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, plan)

    monkeypatch.setenv("GNNRL_SCRATCH", str(checkout / "scratch"))  # nothing is evaluated yet
    monkeypatch.setattr(Students, "evaluate", stop_after_two)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        run("search", *SHORT, *FEW)
    monkeypatch.setattr(Students, "evaluate", real)
    run("search", *SHORT, *FEW)
    assert (checkout / "artifacts" / "search" / "evaluations.csv").read_text() == whole
