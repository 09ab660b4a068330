"""Kills, damages and floods the pipeline at random for some minutes, and counts what happens.

    python -m benchmarks.soak --minutes 20 --seed 0
    python -m benchmarks.soak --only kills --out soak.csv

An undisturbed run on a small network and the digits of scikit-learn comes first, in a temporary
folder, or in that of `--keep`, where it is found again. Then the parts run in four processes side
by side; one that needs less than its share of the minutes leaves the rest to those after it. With
an `--out` that exists, a part goes on where it was. The exit code is 1 if anything went wrong.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; forks must not share pools

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.soak import lanes
from benchmarks.soak.counting import Counts, fill
from benchmarks.soak.stages import Pipeline


def main(
    minutes: Annotated[float, typer.Option(help="How long it may take.")] = 20.0,
    seed: int = 0,
    only: Annotated[str, typer.Option(help="Parts, with commas; all if empty.")] = "",
    out: Annotated[Path | None, typer.Option(help="A CSV file; it is gone on from.")] = None,
    page: Annotated[Path | None, typer.Option(help="A page whose table is replaced.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder of the undisturbed run.")] = None,
) -> None:
    """Soak the pipeline; print the table of counts."""
    began = time.monotonic()
    torch.set_num_threads(1)
    chosen = [name.strip() for name in only.split(",") if name.strip()] or list(lanes.PARTS)
    if unknown := set(chosen) - set(lanes.PARTS):
        raise typer.BadParameter(f"{', '.join(unknown)}: known are {', '.join(lanes.PARTS)}")
    folder = (keep or Path(tempfile.mkdtemp(prefix="soak-"))).absolute()
    try:
        counts = Counts.read(out or folder / "counts.csv")
        pipeline = Pipeline(folder)
        if not set(chosen) <= {"actions", "parameters"}:
            pipeline.undisturbed()
        lanes.soak(chosen, counts, began + 60 * minutes, seed, pipeline)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(counts.table())
    print(f"\nall in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    if page is not None:
        fill(page, counts.table())
    if counts.defects:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
