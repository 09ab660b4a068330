"""`dvc repro` in a checkout of its own, killed again and again until it comes to its end."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import yaml

from benchmarks.soak.counting import Trial
from benchmarks.soak.stages import (
    PATIENCE,
    ROOT,
    SETTINGS,
    Pipeline,
    contents,
    left_behind,
    slowness,
)
from benchmarks.soak.stages import written as journalled
from gnnrl.params.load import put
from gnnrl.runtime import die_with_parent

Result = tuple[bytes, dict[str, bytes]]  # the lock file, and all results
STAGES = ("pretrain", "extract", "search", "prune", "train")
SHELLS = ("/bin/sh", "/bin/bash")
KILLS = 10  # of one chain, after which it runs to its end
TO_START = 2.0  # seconds in which DVC itself starts
GONE = 6.0  # seconds after which no stage may run on without its DVC


def trials(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Run `dvc repro` undisturbed; yield kills of it at random moments, ten of which make a chain,
    whose end is compared."""
    folder = Path(tempfile.mkdtemp(prefix="repro-", dir=pipeline.folder))
    first, chain = Repro(folder / "undisturbed"), Repro(folder / "chain")
    first.make()
    began = time.monotonic()
    if code := first.start("/bin/bash").wait(PATIENCE * slowness()):
        raise SystemExit(f"dvc repro fails undisturbed: exit code {code}: {first.said()}")
    seconds = time.monotonic() - began
    for number in itertools.count():
        chance = random.Random(f"{seed} repro {number}")
        last = (number + 1) % KILLS == 0
        run = partial(kill, chain, first.result(), chance, seconds, last)
        yield Trial("killed dvc repro", number, run)


class Repro:
    """A checkout with few images and epochs, and the DVC that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder, folder / ".gnnrl"

    def make(self) -> None:
        """Copy what DVC needs."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in ("gnnrl", "stages", "inputs"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__py*"))
        shutil.copy(ROOT / "dvc.yaml", self.folder)
        values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for setting in SETTINGS:
            put(values, setting)
        text = yaml.safe_dump(values, sort_keys=False)
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")
        (self.folder / ".dvc").mkdir()
        text = "[core]\n    analytics = false\n    no_scm = true\n"
        (self.folder / ".dvc" / "config").write_text(text, encoding="utf-8")

    def start(self, shell: str) -> subprocess.Popen[bytes]:
        """Start DVC. shell: in which it starts its stages."""
        env = {**os.environ, "SHELL": shell, "DVC_NO_ANALYTICS": "1", "GNNRL_PROGRESS": "0"}
        env.pop("GNNRL_SCRATCH", None)
        with open(self.folder / "said", "wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", *STAGES],
                cwd=self.folder, env=env, stdout=said, stderr=subprocess.STDOUT,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )  # fmt: skip

    def said(self) -> str:
        """Return what DVC and its stages said."""
        return (self.folder / "said").read_text(encoding="utf-8", errors="replace")

    def result(self) -> Result:
        """Return the lock file and all results."""
        return (self.folder / "dvc.lock").read_bytes(), contents(self.folder / "artifacts")

    def running(self) -> list[psutil.Process]:
        """Return the processes that run in the checkout."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.folder) and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found


def kill(chain: Repro, expected: Result, chance: random.Random, seconds: float, last: bool) -> str:
    """Kill `dvc repro` at a random moment; what has come to its end is compared and begun anew.

    seconds: that it takes from its start to its end.  last: let it end after the kill.
    """
    while True:
        if not chain.folder.exists():
            chain.make()
        before = set(journalled(chain.scratch))
        process = chain.start(chance.choice(SHELLS))
        if not _ended_within(process, chance.uniform(TO_START, seconds / 2)):
            break
        if wrong := _end(chain, expected, process):
            return wrong
    process.send_signal(chance.choice((signal.SIGKILL, signal.SIGTERM)))
    process.wait()
    if wrong := _after(chain, before):
        return wrong
    if not last:
        return "goes on"
    return _end(chain, expected, chain.start("/bin/bash")) or "equal after the rerun"


def _after(chain: Repro, before: set[bytes]) -> str | None:
    """Return what is wrong after a kill: a stage that runs on, evaluations that are lost."""
    until = time.monotonic() + GONE * slowness()
    while left := chain.running():
        if time.monotonic() > until:
            for other in left:
                print(other.pid, other.ppid(), other.cmdline(), flush=True)
                other.kill()
            return "a stage runs on"
        time.sleep(0.05)
    lock = chain.folder / ".dvc" / "tmp" / "rwlock"
    if lock.exists() and not lock.read_bytes().strip():  # DVC's own: docs/reliability.md
        lock.unlink()
    return None if before <= set(journalled(chain.scratch)) else "evaluations lost"


def _end(chain: Repro, expected: Result, process: subprocess.Popen[bytes]) -> str | None:
    """Let DVC end; return what is wrong with its results, and remove them."""
    if not _ended_within(process, PATIENCE * slowness()):
        process.kill()
        return "hang"
    if process.returncode:
        print(chain.said(), flush=True)
        return "does not go on"
    if found := left_behind(chain.folder / "artifacts", chain.scratch):
        print(found, flush=True)
        return "left behind"
    if differing := _differing(chain.result(), expected):
        print("not equal:", *differing, chain.folder, flush=True)
        shutil.move(chain.folder, chain.folder.with_name(f"wrong-{time.time_ns()}"))
        return "silently wrong"
    shutil.rmtree(chain.folder)
    return None


def _differing(result: Result, expected: Result) -> list[str]:
    """Return the files that are not the same."""
    (lock, files), (lock_then, then) = result, expected
    names = files.keys() | then.keys()
    found = sorted(name for name in names if files.get(name) != then.get(name))
    return found + (["dvc.lock"] if lock != lock_then else [])


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
