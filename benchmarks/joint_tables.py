"""The table of docs/latency.md from the rows of `benchmarks.joint`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.pruning_table import mean
from benchmarks.repair_tables import gained
from gnnrl.report.sweep import markdown, spread

RESULTS = Path(__file__).parent / "results"
METHODS = {
    "uniform width": "uniform width",
    "uniform depth": "uniform depth",
    "uniform depth and width": "uniform depth and width",
    "allocation": "allocation (width)",
    "flops": "`ppo`, width, budget of flops",
    "width": "`ppo`, width",
    "depth": "`ppo`, depth",
    "joint": "`ppo`, depth and width",
    "torch-pruning": "Torch-Pruning, Taylor, global",
}


def joint() -> str:
    """Return accuracy at equal latency, and what depth and width together gain over each."""
    rows = pd.read_csv(RESULTS / "joint.csv")
    lines = []
    for budget, part in sorted(rows.groupby("budget"), reverse=True):
        whole = part[part["method"] == "joint"]
        for method, says in METHODS.items():
            own = part[part["method"] == method]
            if len(own):
                figures = [spread(own["latency"], 3), mean(own["accuracy_before_training"])]
                lead = "" if method == "joint" else gained(whole, own)
                key = [f"{1 / budget:.0f}×", says, str(len(own))]
                lines.append([*key, *figures, mean(own["accuracy"]), lead])
    head = ["speed asked", "method", "seeds", "latency, measured", "refitted", "trained",
            "gain of depth and width over it (p)"]  # fmt: skip
    return markdown(head, lines)
