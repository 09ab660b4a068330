"""A search on a local Ray, whose workers and whose head node are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.soak.counting import Trial
from benchmarks.soak.stages import PATIENCE, ROOT, SETTINGS, Pipeline, contents, slowness, written
from gnnrl.runtime import die_with_parent

WORKERS = 4
OF_RAY = (f"search.ray={{workers: {WORKERS}, cpus: 0.5}}",)
HEADS = (("gcs_server", "raylet"), ("raylet",), ("gcs_server",))
"""Processes of the head node that are killed, in turn: the node as a whole, then one of them."""
GONE = 30.0  # seconds after which nothing of a Ray may run on


def trials(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield kills of a quarter of the workers, and every other time of the head node."""
    if find_spec("ray") is None:
        print("workers: left out, Ray is not installed", flush=True)
        return
    number = 0
    while True:
        chance = random.Random(f"{seed} worker {number}")
        run = partial(kill, pipeline, ("ray::_Worker",), max(1, WORKERS // 4), chance)
        yield Trial("killed a quarter of the workers of Ray", number, run)
        chance, names = random.Random(f"{seed} head {number}"), HEADS[number % len(HEADS)]
        yield Trial("killed the head of Ray", number, partial(kill, pipeline, names, 2, chance))
        number += 1


def kill(pipeline: Pipeline, names: tuple[str, ...], most: int, chance: random.Random) -> str:
    """Kill processes of these names in the middle of a search; compare its results.

    A search whose head node is killed may end; then it is run again.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out, scratch = folder / "out", folder / "scratch"
        process = _start(pipeline, out, folder)
        wanted = chance.randint(1, max(1, pipeline.evaluations * 2 // 3))
        until = time.monotonic() + PATIENCE * slowness()
        while len(written(scratch)) < wanted and process.poll() is None:
            if time.monotonic() > until:
                return _hang(process)
            time.sleep(0.02)
        all_ = _started(process.pid)
        found = [other for other in all_ if _named(other, names)]
        if not found:
            print((folder / "said").read_text(errors="replace"), flush=True)
            return "nothing to kill"
        for victim in chance.sample(found, min(len(found), most)):
            victim.send_signal(signal.SIGKILL)
        try:
            code = process.wait(PATIENCE * slowness())
            if code and names in HEADS:
                process = _start(pipeline, out, folder)
                code = process.wait(PATIENCE * slowness())
        except subprocess.TimeoutExpired:
            return _hang(process)
        if code:
            print((folder / "said").read_text(errors="replace"), flush=True)
            return "does not go on"
        if left := psutil.wait_procs(all_, GONE * slowness())[1]:
            print([other.cmdline() for other in left], flush=True)
            for other in left:
                other.kill()
            return "a process runs on"
        plans = [json.loads(line)["plan"] for line in written(scratch)]
        if len(plans) != len(set(plans)):
            return "evaluated twice"
        same = contents(out) == contents(pipeline.artifacts / "search")
        return "equal to no workers" if same else "silently wrong"


def _start(pipeline: Pipeline, out: Path, folder: Path) -> subprocess.Popen[bytes]:
    words = [*map(str, pipeline.words["search"]), "--out", str(out)]
    for setting in (*SETTINGS, *OF_RAY):
        words += ["--set", setting]
    env = {**os.environ, "GNNRL_SCRATCH": str(folder / "scratch"), "GNNRL_PROGRESS": "0"}
    env.pop("RAY_ADDRESS", None)
    env["RAY_TMPDIR"] = str(folder)
    env["RAY_worker_niceness"] = "0"  # else the other parts, beside it, leave them no time
    env["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"  # a driver without a head ends sooner
    with open(folder / "said", "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.search", *words],
            cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )  # fmt: skip


def _started(pid: int) -> list[psutil.Process]:
    """Return the processes that a search has started, and theirs."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _named(process: psutil.Process, names: tuple[str, ...]) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return bool(words) and any(name in words[0] for name in names)


def _hang(process: subprocess.Popen[bytes]) -> str:
    for other in [*_started(process.pid), process]:
        other.kill()
    process.wait()
    return "hang"
