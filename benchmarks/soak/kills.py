"""Stages that are killed at random moments, and run again."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.soak.counting import Trial
from benchmarks.soak.stages import Pipeline, Running, begun, left_behind, written

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TO_END = 5.0  # seconds that a stage has to end after SIGINT and SIGTERM, on idle cores


def trials(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield kills of all stages in turn."""
    number = 0
    while True:
        for stage in pipeline.words:
            run = partial(kill, pipeline, stage, random.Random(f"{seed} {stage} {number}"), number)
            yield Trial(f"killed {stage}", number, run)
        number += 1


def kill(pipeline: Pipeline, stage: str, chance: random.Random, number: int) -> str:
    """Kill a stage at a random second, or at a random change of a file; run it again, compare."""
    with tempfile.TemporaryDirectory() as name:
        out, scratch = Path(name) / "out", Path(name) / "scratch"
        if number % 2:
            last = pipeline.steps[stage]
            first = 1 if chance.random() < 0.3 else max(1, last - 40)  # results are replaced last
            running = pipeline.start(stage, out, scratch, die_at=chance.randint(first, last))
            wrong = None if running.wait() is not None else "hang"
        else:
            running = pipeline.start(stage, out, scratch)
            time.sleep(pipeline.seconds[stage] * chance.random())
            wrong = _end(running, chance.choice(SIGNALS))
        return wrong or _again(pipeline, stage, out, scratch)


def _end(running: Running, number: signal.Signals) -> str | None:
    """Send a signal; return what is wrong with the end of the stage, None for nothing."""
    os.kill(running.pid, number)  # it is ours until `wait` has collected it
    code = running.wait(TO_END)
    if code is None:
        return "hang"
    if code == 128 + number and "run the same command again" not in running.text():
        return "says nothing on how to go on"
    return "traceback" if "Traceback" in running.text() else None


def _again(pipeline: Pipeline, stage: str, out: Path, scratch: Path) -> str:
    """Run a stage that was killed to its end; say what became of it."""
    before = set(written(scratch))
    running = pipeline.start(stage, out, scratch)
    code = running.wait()
    if code is None:
        return "hang"
    if code:
        print(running.text(), flush=True)
        return "traceback" if "Traceback" in running.text() else "does not go on"
    if stage == "search":
        lost = begun(out) - pipeline.evaluations
        if lost > 1 or not before <= set(written(scratch)):
            return f"{lost} evaluations lost"
    if found := left_behind(out, scratch):
        print(found, flush=True)
        return "left behind"
    return "equal after the rerun" if pipeline.same(stage, out) else "silently wrong"
