"""The table of docs/latency.md from the rows of `benchmarks.joint`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.pruning_table import gained, mean
from gnnrl.report.sweep import markdown, spread

RESULTS = Path(__file__).parent / "results"
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
    "torch-pruning": "Torch-Pruning, Taylor, global",
}


def joint() -> str:
    """Return accuracy at equal latency, and what depth and width together gain over each."""
    rows = pd.read_csv(RESULTS / "joint.csv")
    measured = pd.read_csv(RESULTS / "joint_latency.csv").set_index("plan")["latency"]
    rows = rows.join(measured, on="plan")
    lines = []
    for budget, part in sorted(rows.groupby("budget"), reverse=True):
        whole = part[part["method"] == "joint"]
        for method, says in METHODS.items():
            own = part[part["method"] == method]
            if len(own):
                key = [
                    f"{1 / budget:.0f}×",
                    says,
                    str(len(own)),
                    f"{own['removed_layers'].mean():.0f}",
                ]
                taken = [spread(own["predicted"], 3), spread(own["latency"], 3)]
                figures = [mean(own["accuracy_before_training"]), mean(own["accuracy"])]
                lead = "" if method == "joint" else gained(whole, own)
                lines.append([*key, *taken, *figures, lead])
    head = ["speed asked", "method", "seeds", "blocks removed", "latency, predicted", "measured",
            "refitted", "trained", "gain of depth and width over it (p)"]  # fmt: skip
    return markdown(head, lines)
