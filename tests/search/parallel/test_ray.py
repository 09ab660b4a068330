"""Searches on real Ray, on this machine: nothing is lost, nothing counted twice, nothing waits."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import FAILED
from gnnrl.search.loop import search
from gnnrl.search.parallel.ray import ray_workers
from gnnrl.search.parallel.settings import RaySettings
from gnnrl.search.parallel.workers import Shared
from tests import stage_runs
from tests.rl.toys import Target
from tests.search.parallel.pools import Pruning, evaluated

ROOT = Path(__file__).parents[3]
TINY = {"hidden": 8, "layers": 1}
PARAMETERS = {"ppo": {**TINY, "n_epochs": 2}, "a3c": TINY, "reinforce": TINY}


@pytest.fixture(scope="module")
def cluster():
    """One small cluster for all tests; each has workers of its own on it."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local", num_cpus=4, object_store_memory=100_000_000, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    yield ray
    ray.shutdown()


def run(env, name="random", workers=None, timeout_s=60.0, evaluations=14, **options):
    """Search with so many workers on Ray, or in this process."""
    agent = build_agent(name, env, seed=0, **PARAMETERS.get(name, {}))
    arguments = {"evaluations": evaluations, "batch": 6, "seed": 0, **options}
    if workers is None:
        return search(env, agent, **arguments)
    settings = RaySettings(workers=workers, timeout_s=timeout_s)
    with ray_workers(Shared(env, agent), settings) as pool:
        return search(env, agent, workers=pool, **arguments)


@pytest.mark.ray
@pytest.mark.parametrize("name", ["ppo", "evolution"])
def test_the_number_of_workers_changes_nothing_but_the_time(cluster, name, tmp_path):
    here = run(Pruning(tmp_path / "here"), name)
    for workers in (1, 2):
        there = run(Pruning(tmp_path / "there"), name, workers)
        assert there.plan == here.plan and there.reward == here.reward
        assert there.evaluations == here.evaluations and there.history == here.history


@pytest.mark.ray
def test_one_asynchronous_worker_is_this_process_and_two_spend_as_much(cluster, tmp_path):
    here = run(Pruning(tmp_path / "log"), "a3c")
    there = run(Pruning(tmp_path / "log"), "a3c", 1)
    assert there.evaluations == here.evaluations
    pairs = zip(here.agent.policy.parameters(), there.agent.policy.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    two = run(Pruning(tmp_path / "log", seconds=0.05), "a3c", 2, batch=2)
    assert len(two.evaluations) == 14
    assert max(row["staleness"] for row in two.history) <= 8


@pytest.mark.ray
@pytest.mark.parametrize("name", ["reinforce", "a3c"])
def test_an_environment_without_plans_takes_its_steps_there(cluster, name):
    env = Target("binary", static=False, steps=2)
    assert run(env, name, 1).evaluations == run(env, name).evaluations


@pytest.mark.ray
def test_a_worker_that_is_killed_costs_no_result_and_no_second_row(cluster, tmp_path):
    log = tmp_path / "log"

    def kill():
        while len(evaluated(log)) < 5:
            time.sleep(0.01)
        os.kill(int(log.read_text().splitlines()[-1].split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = run(Pruning(log, seconds=0.4), workers=2, journal=tmp_path / "journal")
    killer.join()
    here = run(Pruning(tmp_path / "here"))
    assert found.evaluations == here.evaluations
    assert max(Counter(row["plan"] for row in found.evaluations).values()) == 1
    assert len(evaluated(log)) == 14 + 1  # the one that was cut short was begun again


@pytest.mark.ray
def test_students_in_trouble_get_the_failed_reward_and_a_reason(cluster, tmp_path):
    plans = [row["plan"] for row in run(Pruning(tmp_path / "here")).evaluations]
    trouble = dict(zip(plans[1:5], ("raises", "hangs", "nan", "dies"), strict=True))
    found = run(Pruning(tmp_path / "log", trouble=trouble), workers=2, timeout_s=3.0)
    rows = {row["plan"]: row for row in found.evaluations}
    assert [row["plan"] for row in found.evaluations] == plans
    said = [rows[plan]["status"] for plan in trouble]
    assert said[0] == "ValueError: no such student"
    assert said[1] == "no result within 3 s"
    assert said[2].startswith("ValueError: reward nan")
    assert said[3] == "3 workers died of it"
    assert {rows[plan]["reward"] for plan in trouble} == {FAILED}
    assert all(rows[plan]["status"] == "ok" for plan in plans if plan not in trouble)


@pytest.mark.ray
def test_what_never_gives_a_result_ends_the_search(cluster, tmp_path):
    env = Pruning(tmp_path / "no" / "such" / "folder" / "log")
    with pytest.raises(UserError, match=r"the first 16 plans gave no result: FileNotFoundError"):
        run(env, workers=1, evaluations=40)


@pytest.mark.ray
def test_workers_that_cannot_be_made_end_the_search(cluster):
    def broken():
        raise ValueError("no images here")

    env = Target("binary")
    with ray_workers(broken, RaySettings(workers=1)) as pool:
        with pytest.raises(UserError, match=r"no worker can be started: .*no images here"):
            search(env, build_agent("random", env), evaluations=3, workers=pool)


SCRIPT = """
import sys
from pathlib import Path
from tests.search.parallel.pools import Pruning
from tests.search.parallel.test_ray import run
folder = Path(sys.argv[1])
env = Pruning(folder / "log", seconds=0.4)
found = run(env, "ppo", 2, evaluations=24, journal=folder / "journal")
print(found.plan.digest, len(found.evaluations))
"""


@pytest.mark.ray
def test_a_search_goes_on_after_its_driver_was_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    words = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    first = subprocess.Popen(words, env=environment, cwd=ROOT, start_new_session=True)
    rows = tmp_path / "journal" / "evaluations.jsonl"
    give_up = time.monotonic() + 120
    while not (rows.exists() and rows.read_text().count("\n") >= 10):
        assert first.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = rows.read_text().count("\n")
    said = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True)
    whole = run(Pruning(tmp_path / "here"), "ppo", evaluations=24)
    assert said.stdout.split() == [whole.plan.digest, str(len(whole.evaluations))], said.stderr
    begun = len(evaluated(tmp_path / "log"))
    total = sum(not row["cached"] for row in whole.evaluations)
    assert 10 <= before < total and begun <= total + 2  # those that ran when it was killed


ASKED = """
import sys, time, typer
from gnnrl.search.parallel.ray import ray_workers
from gnnrl.search.parallel.settings import RaySettings
from gnnrl.search.parallel.workers import Shared
from stages import _cli
from tests.rl.toys import Target
try:
    with _cli.refusals("search"):
        with ray_workers(Shared(Target("binary")), RaySettings(workers=1)):
            print(1, flush=True)
            time.sleep(60)
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


@pytest.mark.ray
def test_a_search_on_ray_ends_on_a_signal_with_the_line_on_how_to_go_on():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", ASKED], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "1\n"
    process.terminate()
    _, said = process.communicate(timeout=60)
    expected = "search: ended by a signal; run the same command again to go on where it was"
    assert expected in said.splitlines() and process.returncode == 128 + signal.SIGTERM


def call(stage, *words):
    """Run a stage of the preset n2n in this process, made small."""
    small = ("pretrain.recipe.epochs=1", "search.evaluations=5", "search.batch=3",
             "search.students.recipe.epochs=1")  # fmt: skip
    settings = [word for setting in small for word in ("--set", setting)]
    app = importlib.import_module(f"stages.{stage}").app
    arguments = ["--params", str(stage_runs.preset("n2n")), *map(str, words), *settings]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.ray
def test_the_stage_trains_the_same_students_on_workers(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    final, graph = tmp_path / "final.safetensors", tmp_path / "graph.json"
    call("pretrain", "--out", tmp_path)
    call("extract", "--network", final, "--out", tmp_path)
    files = "--pretrain", tmp_path, "--graph", graph
    call("search", *files, "--out", tmp_path / "here")
    workers = "search.ray={workers: 2, cpus: 1, gpus: 0, timeout_s: 300}"
    call("search", *files, "--out", tmp_path / "there", "--set", workers)
    names = sorted(p.relative_to(tmp_path / "here") for p in (tmp_path / "here").rglob("*.*"))
    assert sum(name.suffix == ".safetensors" for name in names) >= 2
    for name in names:
        here, there = (tmp_path / where / name for where in ("here", "there"))
        assert here.read_bytes() == there.read_bytes(), name


def test_a_local_ray_asks_for_a_token_that_nobody_else_can_read(monkeypatch, tmp_path):
    class Ray:
        @staticmethod
        def is_initialized():
            return False

        @staticmethod
        def init(**given):
            (tmp_path / "token").write_text("secret")
            raise ConnectionError

    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that it is set back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr("gnnrl.search.parallel.ray._ray", lambda: Ray)
    with pytest.raises(ConnectionError), ray_workers(Shared(Target("binary")), RaySettings()):
        pass
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert not (tmp_path / "token").stat().st_mode & 0o077


def test_without_ray_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'gnnrl-pipeline\[ray\]'"):
        with ray_workers(Shared(Target("binary")), RaySettings()):
            pass


@pytest.mark.parametrize("name", ["workers", "cpus", "timeout_s"])
def test_settings_that_make_no_sense_are_refused(name):
    with pytest.raises(UserError, match=rf"'{name}' must be .*, got 0"):
        RaySettings(**{name: 0})
