"""What a training leaves behind: every makespan, the means, the history and the agent."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from gnnrl.runtime import atomic_write
from gnnrl.scheduling.settings import Schedule
from gnnrl.scheduling.train import held_out_rows, over_optimum, relative, tiny_rows
from gnnrl.search.loop import SearchResult

Figures = Mapping[str, Mapping[str, float]]


def write_results(output: Path, settings: Schedule, result: SearchResult) -> list[str]:
    """Measure the agent, write metrics.json, two CSV files and the agent; lines for people.

    over_heft: mean makespan over HEFT's, by size.  over_optimum: mean of makespan over optimum.
    """
    sizes = {n: held_out_rows(settings, result.agent, n)
             for n in (settings.test_tasks, settings.large_tasks)}  # fmt: skip
    tiny = tiny_rows(settings, result.agent)
    figures: dict[str, Mapping[str, float]] = {
        f"over_heft_{tasks}_tasks": relative(rows, "heft") for tasks, rows in sizes.items()
    }
    figures[f"over_optimum_{settings.tiny_tasks}_tasks"] = over_optimum(tiny)
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / "metrics.json", json.dumps({"schedule": figures}, indent=2).encode())
    rows = (
        {"tasks": tasks, "problem": row.problem, "scheduler": row.scheduler,
         "makespan": row.makespan}
        for tasks, group in {**sizes, settings.tiny_tasks: tiny}.items() for row in group
    )  # fmt: skip
    atomic_write(output / "makespans.csv", as_csv(rows))
    atomic_write(output / "history.csv", as_csv(result.history))
    buffer = io.BytesIO()
    torch.save(result.agent.state_dict(), buffer)
    atomic_write(output / "agent.pt", buffer.getvalue())
    return lines(figures)


def as_csv(rows: Iterable[Mapping[str, object]]) -> bytes:
    """Rows with the columns of the first, as CSV."""
    given: Sequence[Mapping[str, object]] = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(given[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(given)
    return text.getvalue().encode()


def lines(figures: Figures) -> list[str]:
    """One line per size: every scheduler and its figure, the best first."""
    return [
        f"{name}: "
        + ", ".join(f"{who} {value:.3f}" for who, value in sorted(by.items(), key=lambda i: i[1]))
        for name, by in figures.items()
    ]
