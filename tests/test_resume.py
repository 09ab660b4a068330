"""A stage that is killed goes on where it was, and ends as if it had been left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATIENCE = 240.0  # seconds to wait for another process

pytestmark = pytest.mark.slow


def start(
    stage: str, *arguments: object, env: Mapping[str, str], settings: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a stage in a process of its own."""
    words = [str(argument) for argument in arguments]
    for setting in ("network.input_shape=[3, 16, 16]", "data.reward_images=100", *settings):
        words += ["--set", setting]
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", *words],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process; return what it said."""
    said, wrong = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, wrong
    return said


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so while the process runs."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense network and its graph."""
    folder = tmp_path_factory.mktemp("dense")
    env = {"GNNRL_SCRATCH": str(folder / "scratch")}
    settings = ("pretrain.recipe.epochs=1", "pretrain.snapshots=[]")
    finish(start("pretrain", "--out", folder, env=env, settings=settings))
    final = folder / "final.safetensors"
    finish(start("extract", "--network", final, "--out", folder, env=env))
    return folder


def search(dense: Path, out: Path, scratch: Path) -> subprocess.Popen[str]:
    graph = dense / "graph.json"
    return start(
        "search", "--pretrain", dense, "--graph", graph, "--out", out,
        env={"GNNRL_SCRATCH": str(scratch)},
        settings=("search.evaluations=12", "search.batch=8"),
    )  # fmt: skip


def evaluated(scratch: Path) -> int:
    """How many evaluations are journalled below a scratch folder."""
    return sum(path.read_text().count("\n") for path in scratch.rglob("evaluations.jsonl"))


def test_a_killed_search_ends_with_the_same_plan(dense, tmp_path):
    finish(search(dense, tmp_path / "alone", tmp_path / "other"))
    plans = json.loads((tmp_path / "alone" / "metrics.json").read_text())["search"]["plans"]
    scratch = tmp_path / "scratch"
    killed = search(dense, tmp_path / "killed", scratch)
    wait_for(lambda: evaluated(scratch) >= plans // 2, killed)
    killed.send_signal(signal.SIGSTOP)  # it holds its lock for as long as the second one takes
    second = search(dense, tmp_path / "second", scratch)
    _, said = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1 and f"another process (pid {killed.pid})" in said
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()
    assert plans // 2 <= evaluated(scratch) < plans
    said = finish(search(dense, tmp_path / "killed", scratch))
    assert "search goes on after" in said
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")
    kept = next((scratch / "search").glob("*/finished")).parent
    assert [path.name for path in (scratch / "search").iterdir()] == [kept.name]
    shutil.rmtree(tmp_path / "killed")  # as DVC does, where it was killed before its lock file
    said = finish(search(dense, tmp_path / "killed", scratch))
    assert f"search goes on after {evaluated(scratch)} evaluated plans" in said
    assert evaluated(scratch) == evaluated(tmp_path / "other")
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_another_seed_does_not_go_on_from_a_killed_search(dense, tmp_path):
    scratch = tmp_path / "scratch"
    killed = search(dense, tmp_path / "killed", scratch)
    wait_for(lambda: evaluated(scratch) >= 8, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    graph = dense / "graph.json"
    other = start(
        "search", "--pretrain", dense, "--graph", graph, "--out", tmp_path / "other",
        env={"GNNRL_SCRATCH": str(scratch)},
        settings=("search.evaluations=2", "search.seed=1"),
    )  # fmt: skip
    assert "goes on" not in finish(other)


def train(dense: Path, out: Path, scratch: Path) -> subprocess.Popen[str]:
    final = dense / "final.safetensors"
    return start(
        "train", "--subnet", final, "--teacher", final, "--out", out,
        env={"GNNRL_SCRATCH": str(scratch)},
        settings=("train.recipe.epochs=12",),
    )  # fmt: skip


def test_a_killed_training_ends_with_the_same_weights(dense, tmp_path):
    finish(train(dense, tmp_path / "alone", tmp_path / "other"))
    scratch = tmp_path / "scratch"
    killed = train(dense, tmp_path / "killed", scratch)
    wait_for(lambda: any(scratch.rglob("training.pt")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    said = finish(train(dense, tmp_path / "killed", scratch))
    assert "training goes on after epoch" in said
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_stage_ends_with_the_dvc_that_started_it(dense, tmp_path):
    """DVC forwards no signals: killed, it would leave a search running that nobody waits for."""
    graph = dense / "graph.json"
    program = (
        "import subprocess, sys\n"
        "print(subprocess.Popen(sys.argv[1:]).pid, flush=True)\n"
        "import time; time.sleep(1000)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, sys.executable, "-m", "stages.search",
         "--pretrain", dense, "--graph", graph, "--out", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "GNNRL_SCRATCH": str(tmp_path / "scratch"), "DVC_STAGE": "search"},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: any((tmp_path / "scratch").rglob("pid")), parent)
    parent.kill()
    until = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and "Z" not in state(child):
        assert time.monotonic() < until, "the stage outlived its parent"
        time.sleep(0.05)


def state(pid: int) -> str:
    """The state of a process, Z for one that has ended and waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
