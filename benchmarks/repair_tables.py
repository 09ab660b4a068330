"""Tables of docs/results.md from the rows of `benchmarks.after_repair` and `benchmarks.front`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.pruning_table import gain
from gnnrl.report.sweep import markdown, spread

RESULTS = Path(__file__).parent / "results"
CHECKPOINTS = {"a2648c022bb3": "ResNet-20", "59c9cdb28037": "ResNet-56"}
METHODS = {
    "uniform in blocks": "uniform in blocks",
    "allocation": "allocation (one calibration pass)",
    "random around allocation": "random around the allocation",
    "solver": "`solver`",
    "evolution": "`evolution` (CMA-ES)",
    "evopress": "`evopress`",
    "annealing": "`annealing`",
    "ppo": "`ppo`",
}


def after_repair() -> str:
    """Return what every method reaches after the layers are refitted, and its gains."""
    rows = pd.read_csv(RESULTS / "after_repair.csv")
    lines = [line for key, part in _settings(rows) for line in _methods(key, part)]
    head = ["network, flops kept", "method", "evaluations", "seeds", "one-shot", "refitted",
            "gain over allocation (p)", "gain of `ppo` (p)"]  # fmt: skip
    return markdown(head, lines)


def _settings(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each network and budget."""
    rows = rows[rows["method"] != "dense"]
    for name, says in CHECKPOINTS.items():
        own = rows[rows["checkpoint"] == name]
        for budget, part in sorted(own.groupby("budget"), reverse=True):
            yield f"{says}, {budget:.2f}", part


def _methods(key: str, part: pd.DataFrame) -> Iterator[list[str]]:
    allocation = part[part["method"] == "allocation"]
    for spend in sorted(set(part["evaluations"])):
        same = part[part["evaluations"] == spend]
        ours = same[same["method"] == "ppo"]
        for method, says in METHODS.items():
            own = same[same["method"] == method]
            if len(own):
                spent = f"{own['spent'].mean():.0f}"
                figures = [mean(own["accuracy_one_shot"]), mean(own["accuracy"])]
                over = "" if method == "allocation" else gained(own, allocation)
                lead = "" if method == "ppo" else gained(ours, own)
                yield [key, says, spent, str(len(own)), *figures, over, lead]


def front() -> str:
    """Return one search for all budgets beside a search for each."""
    rows = pd.read_csv(RESULTS / "front.csv")
    lines = []
    for budget, part in rows.groupby("budget"):
        by_method = {name: own for name, own in part.groupby("method")}
        ours, other = by_method["conditional ppo"], by_method.get("evolution")
        cells = [f"{budget:.2f}", str(ours["seed"].nunique()), mean(ours["accuracy"])]
        if other is None:
            lines.append([*cells, "", "", "not searched"])
            continue
        controls = by_method["allocation"]["accuracy"]
        lines.append([*cells, mean(other["accuracy"]), mean(controls), gained(ours, other)])
    both = rows[rows["budget"].isin(rows[rows["method"] == "evolution"]["budget"])]
    means = both.groupby("method")["accuracy"].mean()
    names = ("conditional ppo", "evolution", "allocation")
    lines.append(["mean of the six", "", *(f"{100 * means[name]:.1f}" for name in names), ""])
    head = ["flops kept", "seeds", "one search (`ppo`)", "`evolution` for each", "allocation",
            "gain over `evolution` (p)"]  # fmt: skip
    return markdown(head, lines)


def mean(parts: pd.Series) -> str:
    """Return mean ± standard deviation, in %."""
    return spread(100 * parts, 1)


def gained(ours: pd.DataFrame, other: pd.DataFrame) -> str:
    """Return the mean gain in points, with p over seeds and images; empty: no seeds in common."""
    if not set(ours["seed"]) & set(other["seed"]):
        return ""
    points, _, p, pairs = gain(ours, other)
    chance = "< 0.001" if p < 0.001 else f"{p:.3f}"
    few = "" if pairs == len(ours) == len(other) else f"; {pairs} seeds"
    return f"{points:+.1f} ({chance}{few})"
