"""Every number on scheduling: python -m benchmarks.scheduling -> benchmarks/scheduling.csv.

Trains the scheduler of examples/scheduling/params.yaml for each seed, with and without the
lookahead in its observations, and measures it on held-out job graphs.  About 10 minutes a seed.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PARAMS = HERE.parent / "examples" / "scheduling" / "params.yaml"


def measure(seed: int, lookahead: bool) -> Iterator[dict[str, Any]]:
    """Train once; a row per size and scheduler."""
    from gnnrl.scheduling.report import measured
    from gnnrl.scheduling.settings import load_settings
    from stages.schedule import train

    settings = load_settings(PARAMS)
    settings = settings.model_copy(update={"seed": seed, "lookahead": lookahead})
    wall, cpu = time.perf_counter(), time.process_time()
    agent = train(settings).agent
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    figures, _ = measured(settings, agent)
    for figure, by in figures.items():
        for scheduler, value in by.items():
            yield {"seed": seed, "lookahead": lookahead, "episodes": settings.episodes,
                   "figure": figure, "scheduler": scheduler, "value": f"{value:.4f}",
                   "train_seconds": round(wall), "train_cpu_seconds": round(cpu),
                   **versions()}  # fmt: skip


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    import numpy
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__,
            "numpy": numpy.__version__, "threads": str(torch.get_num_threads())}  # fmt: skip


def main() -> None:
    """Measure and write the file anew after each training: a killed run keeps what it has."""
    from gnnrl.files import write_csv

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=HERE / "scheduling.csv")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        for lookahead in (True, False):
            rows += measure(seed, lookahead)
            write_csv(given.output, rows)
            print(*(f"{r['figure']} {r['scheduler']} {r['value']}" for r in rows), sep="\n")


if __name__ == "__main__":
    main()
