"""Kills, damages and floods the pipeline at random for some minutes, and counts what happens.

    python -m benchmarks.soak --minutes 20 --seed 0
    python -m benchmarks.soak --only kills --out soak.csv

An undisturbed run on ResNet-20 and the digits of scikit-learn comes first, in a temporary folder,
or in that of `--keep`, where it is found again; the minutes begin after it. A part that needs fewer
leaves the rest to those after it. With an `--out` that exists, a part goes on where it was. The
exit code is 1 if anything went wrong.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; forks must not share pools

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.soak import damage, floods, kills, repro, workers
from benchmarks.soak.counting import Counts, Trial
from benchmarks.soak.stages import Pipeline

Trials = Callable[[Pipeline, int], Iterator[Trial]]
PARTS: dict[str, tuple[Trials, int, float]] = {  # trials, how many at most, share of the time
    "kills": (kills.trials, 140, 0.35),
    "repro": (repro.trials, 20, 0.25),
    "damage": (damage.trials, 2_200, 0.1),
    "actions": (floods.actions, 100_000, 0.15),
    "parameters": (floods.parameters, 5_000, 0.05),
    "workers": (workers.trials, 6, 0.1),
}


def main(
    minutes: Annotated[float, typer.Option(help="How long it may take.")] = 20.0,
    seed: int = 0,
    only: Annotated[str, typer.Option(help="Parts, with commas; all if empty.")] = "",
    out: Annotated[Path | None, typer.Option(help="A CSV file; it is gone on from.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder of the undisturbed run.")] = None,
) -> None:
    """Soak the pipeline; print the table of counts."""
    torch.set_num_threads(1)
    chosen = [name.strip() for name in only.split(",") if name.strip()] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(unknown)}: known are {', '.join(PARTS)}")
    folder = (keep or Path(tempfile.mkdtemp(prefix="soak-"))).absolute()
    try:
        counts = Counts.read(out or folder / "counts.csv", tuple(PARTS))
        soak(chosen, counts, minutes, seed, Pipeline(folder))
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(counts.table())
    if counts.defects:
        raise SystemExit(1)


def soak(chosen: list[str], counts: Counts, minutes: float, seed: int, pipeline: Pipeline) -> None:
    """Run parts one after the other."""
    if not set(chosen) <= {"actions", "parameters"}:
        pipeline.undisturbed()
    ready = {name: PARTS[name][0](pipeline, seed) for name in PARTS if name in chosen}
    until, left = time.monotonic() + 60 * minutes, sum(PARTS[name][2] for name in chosen)
    for name, trials in ready.items():
        _, target, share = PARTS[name]
        seconds = (until - time.monotonic()) * share / left
        began = time.monotonic()
        counts.run(name, trials, target, seconds)
        print(
            f"{name}: {counts.of(name):,} of {target:,}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        left -= share


if __name__ == "__main__":
    typer.run(main)
