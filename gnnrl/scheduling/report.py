"""What a training leaves behind: every makespan, the means, the history and the agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gnnrl.files import write_csv, write_json
from gnnrl.rl.agent import Agent
from gnnrl.scheduling.compare import Row
from gnnrl.scheduling.settings import Schedule
from gnnrl.scheduling.train import (
    held_out_rows,
    over_optimum,
    relative,
    structure_rows,
    tiny_rows,
)
from gnnrl.sealed import write_state

Figures = Mapping[str, Mapping[str, float]]
Groups = dict[str, list[Row]]


def measured(settings: Schedule, agent: Agent) -> tuple[Figures, Groups]:
    """The means on held-out graphs and the rows behind them, by what kind of graphs.

    over_heft: mean makespan over HEFT's.  over_optimum: mean of makespan over optimum.
    """
    sizes = (settings.test_tasks, settings.large_tasks)
    groups = {f"{tasks}_tasks": held_out_rows(settings, agent, tasks) for tasks in sizes}
    groups |= structure_rows(settings, agent)
    figures = {f"over_heft_{name}": relative(rows, "heft") for name, rows in groups.items()}
    tiny = f"{settings.tiny_tasks}_tasks"
    groups[tiny] = tiny_rows(settings, agent)
    return {**figures, f"over_optimum_{tiny}": over_optimum(groups[tiny])}, groups


def write_results(
    output: Path, settings: Schedule, agent: Agent, history: Sequence[Mapping[str, float]]
) -> list[str]:
    """Measure the agent, write metrics.json, two CSV files and the agent; lines for people."""
    figures, groups = measured(settings, agent)
    rows = (
        {"graphs": name, "problem": row.problem, "scheduler": row.scheduler,
         "makespan": row.makespan}
        for name, group in groups.items() for row in group
    )  # fmt: skip
    write_json(output / "metrics.json", {"schedule": figures})
    write_csv(output / "makespans.csv", rows)
    write_csv(output / "history.csv", history)
    write_state(output / "agent.pt", agent.state_dict())
    return lines(figures)


def lines(figures: Figures) -> list[str]:
    """One line per size: every scheduler and its figure, the best first."""
    return [
        f"{name}: "
        + ", ".join(f"{who} {value:.3f}" for who, value in sorted(by.items(), key=lambda i: i[1]))
        for name, by in figures.items()
    ]
