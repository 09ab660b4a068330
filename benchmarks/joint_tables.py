"""The table of docs/latency.md from the rows of `benchmarks.joint`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.pruning_table import gained, mean
from gnnrl.report.sweep import markdown, spread

RESULTS = Path(__file__).parent / "results"
REACHED = 0.75
"""Share of the latency that Torch-Pruning comes down to."""
HEAD = ["method", "seeds", "blocks removed", "latency, predicted", "measured", "refitted",
        "trained"]  # fmt: skip
METHODS = {
    "uniform width": "uniform width",
    "uniform depth": "uniform depth",
    "uniform depth and width": "uniform depth and width",
    "allocation": "allocation (width)",
    "least depth": "depth by measured errors",
    "least depth and width": "depth and width by measured errors",
    "flops": "`ppo`, width, budget of flops",
    "width": "`ppo`, width",
    "depth": "`ppo`, depth",
    "joint": "`ppo`, depth and width",
    "joint, rescored": "`ppo`, depth and width, second look",
    "torch-pruning": "Torch-Pruning, Taylor, global",
}
OURS = ("joint, rescored", "joint")


def joint() -> str:
    """Return accuracy at equal latency, and what depth and width together gain over each."""
    lines = [
        [f"{1 / budget:.0f}×", *line]
        for budget, part in sorted(_rows().groupby("budget"), reverse=True)
        if budget <= 0.5
        for line in _lines(part, *OURS)
    ]
    gain = "gain of depth and width over it (p)"
    return markdown(["speed asked", *HEAD, gain], lines)


def rival() -> str:
    """Return the same for the latency that Torch-Pruning comes down to, with widths alone."""
    rows = _rows()
    lines = list(_lines(rows[rows["budget"] == REACHED], "width"))
    return markdown([*HEAD, "gain of `ppo`, width, over it (p)"], lines)


def _rows() -> pd.DataFrame:
    """Return the runs, with the measured latency of their plans."""
    measured = pd.read_csv(RESULTS / "joint_latency.csv").set_index("plan")["latency"]
    return pd.read_csv(RESULTS / "joint.csv").join(measured, on="plan")


def _lines(part: pd.DataFrame, *ours: str) -> Iterator[list[str]]:
    """Yield the cells of each method, and what ours, the first of these that ran, gains over it."""
    mine = next(name for name in ours if name in set(part["method"]))
    whole = part[part["method"] == mine]
    for method, says in METHODS.items():
        own = part[part["method"] == method]
        if len(own):
            key = [says, str(len(own)), f"{own['removed_layers'].mean():.0f}"]
            taken = [spread(own["predicted"], 3), spread(own["latency"], 3)]
            figures = [mean(own["accuracy_before_training"]), mean(own["accuracy"])]
            yield [*key, *taken, *figures, "" if method == mine else gained(whole, own)]
