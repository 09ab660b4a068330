"""Two clones and a remote: what one has computed, the other has nothing to run for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.__main__ import STAGES

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "network.name=tests.tiny:network",
    "network.input_shape=[3,8,8]",
    "data.reward_images=100",
    "pretrain.recipe.epochs=1",
    "pretrain.snapshots=[]",
    "train.recipe.epochs=1",
    "search.evaluations=3",
    "search.batch=2",
    "evaluate.latency_batches=[1]",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the Git checkout"),
]


class Clone:
    """A clone of a checkout whose remote is a folder."""

    def __init__(self, source: Path, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        subprocess.run(["git", "clone", "-q", str(source), str(folder)], check=True)
        self.git("config", "user.name", "tester")
        self.git("config", "user.email", "tester@example.com")
        self.dvc("remote", "modify", "--local", "storage", "url", str(store))

    def git(self, *words: str) -> str:
        return self._run("git", *words)

    def dvc(self, *words: str) -> str:
        return self._run(sys.executable, "-m", "dvc", *words)

    def stage(self, name: str, *words: str) -> str:
        return self._run(sys.executable, "-m", f"stages.{name}", *words)

    def _run(self, *words: str) -> str:
        """Run a command; return what it printed."""
        removed = ("PYTHONDONTWRITEBYTECODE", "GNNRL_SCRATCH")
        env = {name: value for name, value in os.environ.items() if name not in removed}
        env |= {"DVC_NO_ANALYTICS": "1", "GNNRL_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Clone:
    """A clone that ran the pipeline, committed and pushed it."""
    folder = tmp_path_factory.mktemp("first")
    clone = Clone(ROOT, folder / "checkout", folder / "store")
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    clone.stage("preset", "digits", "--force", *settings)
    clone.git("commit", "-qam", "parameters")
    clone.dvc("repro")
    clone.git("add", "--all")
    clone.git("commit", "-qm", "run")
    clone.dvc("push", "--run-cache")
    return clone


@pytest.fixture(scope="module")
def pulled(first, tmp_path_factory) -> Clone:
    """A clone of the first one, with everything that it pushed."""
    second = Clone(first.folder, tmp_path_factory.mktemp("second") / "checkout", first.store)
    second.dvc("pull")
    return second


@pytest.fixture
def second(pulled) -> Iterator[Clone]:
    """The same, as it was pulled for the next test, too."""
    yield pulled
    pulled.git("checkout", "--quiet", "--force", "HEAD")
    pulled.git("clean", "--quiet", "--force", "-d")
    pulled.dvc("checkout", "--force")


def skipped(said: str) -> list[str]:
    return [stage for stage in STAGES if f"Stage '{stage}' didn't change, skipping" in said]


def test_after_a_run_nothing_is_left_to_do(first):
    assert skipped(first.dvc("repro")) == list(STAGES)
    assert "up to date" in first.dvc("status")
    assert not first.git("status", "--porcelain")


def test_a_second_clone_pulls_and_runs_nothing(second):
    for name in ("evaluate/subnet.onnx", "report/report.html", "report/channels.png"):
        assert (second.folder / "artifacts" / name).exists()
    assert skipped(second.dvc("repro")) == list(STAGES)
    assert "up to date" in second.dvc("status")
    assert not second.git("status", "--porcelain")


def test_figures_of_stages_that_an_experiment_did_not_run_are_left_out(second):
    second.dvc("exp", "run", "--name", "whole", "-S", "search.seed=1")
    second.git("checkout", "--force", "HEAD")
    second.dvc("checkout", "--force")
    second.dvc("exp", "run", "--name", "part", "-S", "search.seed=2", "search")
    lines = second.stage("table", "--lines", "search.seed").splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    figures = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["search.seed"] if "search.seed" in row else row["seed"] for row in figures] == [
        "1", "2",
    ]  # fmt: skip
    assert all(row["reward"] for row in figures)
    assert figures[0]["accuracy"] and not figures[1]["accuracy"]


def test_weights_in_inputs_are_a_dependency(second):
    (second.folder / "inputs" / "search" / "latency.json").write_text("{}")
    said = second.dvc("repro", "--dry")
    assert skipped(said)[:2] == ["pretrain", "extract"] and "Running stage 'search'" in said


def test_compress_runs_the_stages_with_dvc_in_a_repository(tmp_path):
    import numpy as np
    import torch
    from PIL import Image

    from tests.tiny import network

    clone, draw = Clone(ROOT, tmp_path / "checkout", tmp_path / "store"), np.random.default_rng(0)
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (clone.folder / "photos" / place).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(clone.folder / "photos" / place / f"{number}.png")
    torch.save(network(2, (3, 8, 8)).state_dict(), clone.folder / "inputs" / "pretrain" / "my.pth")
    asked = ["--network", "tests.tiny:network", "--images", "photos", "--flops", "0.5"]
    asked += ["--weights", "inputs/pretrain/my.pth", "--force"]
    for setting in ("network.input_shape=[3,8,8]", "search.evaluations=4", "train.recipe.epochs=1",
                    "search.calibration_images=8", "prune.recalibration_images=8",
                    "evaluate.latency_batches=[1]", "search.batch=2"):  # fmt: skip
        asked += ["--set", setting]
    said = clone.stage("compress", *asked)
    assert all(f"Running stage '{stage}'" in said for stage in STAGES)
    assert "up to date" in clone.dvc("status")
    assert skipped(clone.stage("compress", *asked)) == list(STAGES)
