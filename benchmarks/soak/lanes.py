"""The parts of a soak, in processes side by side."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.soak import damage, floods, kills, repro, workers
from benchmarks.soak.counting import Counts, Trial
from benchmarks.soak.stages import Pipeline, slowness
from gnnrl.runtime import die_with_parent

Trials = Callable[[Pipeline, int], Iterator[Trial]]
PARTS: dict[str, tuple[Trials, int, float]] = {  # trials, how many at most, share of a lane's time
    "kills": (kills.trials, 7 * kills.OF_EACH, 1.0),
    "repro": (repro.trials, 20, 0.9),
    "workers": (workers.trials, 6, 1.0),
    "damage": (damage.trials, 2_000, 0.4),
    "actions": (floods.actions, 100_000, 0.6),
    "parameters": (floods.parameters, 5_000, 0.1),
}
LANES = (("kills",), ("parameters", "repro"), ("workers",), ("damage", "actions"))
"""Parts that run one after the other in a process; the lanes need about the same time."""
LOOK = 1.0  # seconds between two looks at the lanes


def soak(
    chosen: Sequence[str], counts: Counts, until: float, seed: int, pipeline: Pipeline
) -> None:
    """Run the parts until this second of the monotonic clock at most; add to the counts."""
    running: dict[int, Path] = {}
    for number, names in enumerate(LANES):
        lane = [name for name in names if name in chosen]
        path = pipeline.folder / f"lane-{number}.csv"
        path.unlink(missing_ok=True)
        sys.stdout.flush()
        parent = os.getpid()
        if not (pid := os.fork()):
            os.setsid()  # Ctrl-C is for the first process alone, and every lane has its share
            die_with_parent(parent)
            os._exit(_run(lane, counts.starting(path), until, seed, pipeline))
        running[pid] = path
    paths, failed = tuple(running.values()), False
    while running:
        time.sleep(LOOK)
        for pid in tuple(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                failed |= bool(status)
                del running[pid]
        counts.take(paths)
        counts.write()
    if failed:
        raise SystemExit("a lane of the soak failed: see above")


def _run(lane: Sequence[str], counts: Counts, until: float, seed: int, pipeline: Pipeline) -> int:
    """Run the parts of a lane one after the other; return the exit code."""
    left = sum(PARTS[name][2] for name in lane)
    try:
        for name in lane:
            (trials, target, share), began = PARTS[name], time.monotonic()
            seconds = (until - began) * share / left
            counts.run(name, trials(pipeline, seed), target, seconds)
            print(
                f"{name}: {counts.of(name):,} of {target:,}, {time.monotonic() - began:.0f} s, "
                f"load {slowness():.1f} times the cores",
                flush=True,
            )
            left -= share
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
