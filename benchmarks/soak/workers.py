"""A search on a local Ray, whose workers and whose head are killed."""

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

WORKERS = 4
OF_RAY = (f"search.ray={{workers: {WORKERS}, cpus: 0.5}}",)


def trials(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield kills of a quarter of the workers, and every third time of the head node."""
    if find_spec("ray") is None:
        print("workers: left out, Ray is not installed", flush=True)
        return
    number = 0
    while True:
        for which in range(2):
            run = partial(
                kill, pipeline, "worker", random.Random(f"{seed} worker {number} {which}")
            )
            yield Trial("killed a quarter of the workers of Ray", 2 * number + which, run)
        run = partial(kill, pipeline, "head", random.Random(f"{seed} head {number}"))
        yield Trial("killed the head of Ray", number, run)
        number += 1


def kill(pipeline: Pipeline, what: str, chance: random.Random) -> str:
    """Kill a quarter of the workers, or the head, in the middle of a search; compare its results.

    A search whose head is killed may end; then it is run again.
    """
    with tempfile.TemporaryDirectory() as name:
        out, scratch = Path(name) / "out", Path(name) / "scratch"
        process = _start(pipeline, out, scratch, Path(name) / "said")
        wanted = chance.randint(1, max(1, pipeline.evaluations * 2 // 3))
        until = time.monotonic() + PATIENCE * slowness()
        while len(written(scratch)) < wanted and process.poll() is None:
            if time.monotonic() > until:
                return _hang(process)
            time.sleep(0.02)
        for victim in _victims(process.pid, what, chance):
            victim.send_signal(signal.SIGKILL)
        try:
            code = process.wait(PATIENCE * slowness())
            if code and what == "head":
                process = _start(pipeline, out, scratch, Path(name) / "said")
                code = process.wait(PATIENCE * slowness())
        except subprocess.TimeoutExpired:
            return _hang(process)
        if code:
            print((Path(name) / "said").read_text(errors="replace"), flush=True)
            return "does not go on"
        plans = [json.loads(line)["plan"] for line in written(scratch)]
        if len(plans) != len(set(plans)):
            return "evaluated twice"
        same = contents(out) == contents(pipeline.artifacts / "search")
        return "equal to no workers" if same else "silently wrong"


def _start(pipeline: Pipeline, out: Path, scratch: Path, said: Path) -> subprocess.Popen[bytes]:
    words = [*map(str, pipeline.words["search"]), "--out", str(out)]
    for setting in (*SETTINGS, *OF_RAY):
        words += ["--set", setting]
    env = {**os.environ, "GNNRL_SCRATCH": str(scratch), "GNNRL_PROGRESS": "0"}
    env["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"  # a driver without a head ends sooner
    with open(said, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.search", *words],
            cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _victims(pid: int, what: str, chance: random.Random) -> list[psutil.Process]:
    """Return the processes to be killed, among those that a search has started."""
    found = []
    for process in psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else ():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if ("ray::_Worker" if what == "worker" else "gcs_server") in command:
            found.append(process)
    return chance.sample(found, min(len(found), max(1, WORKERS // 4) if what == "worker" else 1))


def _hang(process: subprocess.Popen[bytes]) -> str:
    for child in [*psutil.Process(process.pid).children(recursive=True), process]:
        child.kill()
    process.wait()
    return "hang"
