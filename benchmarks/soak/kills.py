"""Stages that are killed, or asked to end, at random moments, and run again."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.soak.counting import Trial
from benchmarks.soak.stages import Pipeline, Running, begun, left_behind, written

ASKED = (signal.SIGINT, signal.SIGTERM)
KILLS, EVERY = 20, 3  # kills of each stage; after every third it is asked to end
OF_EACH = KILLS + len(range(0, KILLS, EVERY))
TO_END = 5.0  # seconds that a stage has to end after SIGINT and SIGTERM
STRIKES = 5  # how often a stage is begun until it is met while it runs


def trials(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield kills of all stages in turn, and signals that ask them to end."""
    for number in range(KILLS):
        for stage in pipeline.words:
            chance = random.Random(f"{seed} {stage} {number}")
            disturb = partial(at_a_file if number % 2 else at_a_second, pipeline, stage, chance)
            yield Trial(f"killed {stage}", number, partial(disturbed, pipeline, stage, disturb))
            if number % EVERY == 0:
                which = number // EVERY
                chance = random.Random(f"{seed} {stage} asked {which}")
                disturb = partial(asked, pipeline, stage, chance, ASKED[which % 2])
                run = partial(disturbed, pipeline, stage, disturb)
                yield Trial(f"SIGINT or SIGTERM to {stage}", which, run)


def disturbed(pipeline: Pipeline, stage: str, disturb: Callable[[Path, Path], str | None]) -> str:
    """Disturb a stage, which says what went wrong, run it again, and compare."""
    with tempfile.TemporaryDirectory() as name:
        out, scratch = Path(name) / "out", Path(name) / "scratch"
        return disturb(out, scratch) or again(pipeline, stage, out, scratch)


def at_a_file(
    pipeline: Pipeline, stage: str, chance: random.Random, out: Path, scratch: Path
) -> str | None:
    """Kill a stage when it opens, moves or removes a file; mostly one of the last."""
    last = pipeline.steps[stage]
    first = 1 if chance.random() < 0.3 else max(1, last - 40)  # results are replaced last
    running = pipeline.start(stage, out, scratch, die_at=chance.randint(first, last))
    return None if running.wait() is not None else "hang"


def at_a_second(
    pipeline: Pipeline, stage: str, chance: random.Random, out: Path, scratch: Path
) -> str | None:
    """Kill a stage at a random second."""
    running = _met(pipeline, stage, chance, out, scratch)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    return None


def asked(
    pipeline: Pipeline,
    stage: str,
    chance: random.Random,
    number: signal.Signals,
    out: Path,
    scratch: Path,
) -> str | None:
    """Ask a stage to end at a random second; return what is wrong with its end."""
    running = _met(pipeline, stage, chance, out, scratch)
    since = time.monotonic()
    os.kill(running.pid, number)  # it is ours until `wait` has collected it
    code = running.wait(3 * TO_END)
    seconds = time.monotonic() - since
    if code is None:
        return "hang"
    if seconds > TO_END:
        print(f"{stage} needed {seconds:.1f} s to end", flush=True)
        return "ended late"
    if code == 0:  # its work was done when the signal came
        return None
    if code != 128 + number or "run the same command again" not in running.text():
        print(f"exit code {code}: {running.text()}", flush=True)
        return "says nothing on how to go on"
    return "traceback" if "Traceback" in running.text() else None


def _met(
    pipeline: Pipeline, stage: str, chance: random.Random, out: Path, scratch: Path
) -> Running:
    """Start a stage and let it run for a random time; begin anew where it has ended by then.

    The time begins when the stage does: before that, Python starts.
    """
    seconds = pipeline.seconds[stage] * chance.uniform(0.0, 0.8)  # its imports are done by now
    for strike in range(STRIKES):
        running = pipeline.start(stage, out, scratch)
        while running.runs() and not running.listens():
            time.sleep(0.01)
        time.sleep(seconds * 0.5**strike)
        if running.runs():
            break
    return running


def again(pipeline: Pipeline, stage: str, out: Path, scratch: Path) -> str:
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
