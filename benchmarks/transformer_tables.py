"""Tables of docs/results.md from the rows of `benchmarks.transformer_repair`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.pruning_table import gained, mean
from gnnrl.report.sweep import markdown

RESULTS = Path(__file__).parent / "results"
REPAIRS = {
    "none": "plain cut",
    "mean_shift": "mean shift",
    "gram": "Gram",
    "sequential": "sequential",
}
PLANS = {
    "uniform": "`uniform`",
    "allocation": "allocation",
    "solver": "`solver`",
    "evolution": "`evolution` (CMA-ES)",
    "ppo": "`ppo`",
    "torch-pruning taylor": "Torch-Pruning, Taylor",
}


def rows_of() -> pd.DataFrame:
    """Return the rows, without the dense network's."""
    rows = pd.read_csv(RESULTS / "transformer_repair.csv")
    return rows[rows["method"] != "dense"]


def repairs() -> str:
    """Return the accuracy of each plan after each repair."""
    lines = []
    for budget, part in sorted(rows_of().groupby("budget"), reverse=True):
        for plan, says in PLANS.items():
            own = part[part["method"] == plan]
            if len(own):
                found = {repair: own[own["repair"] == repair] for repair in REPAIRS}
                lines.append([f"{budget:.2f}", says, *map(_cell, found.values())])
    return markdown(["flops kept", "plan", *REPAIRS.values()], lines)


def _cell(rows: pd.DataFrame) -> str:
    return f"{mean(rows['accuracy'])} ({len(rows)})" if len(rows) else "–"


def searches() -> str:
    """Return what the plans gain over each other once they are refitted."""
    rows = rows_of()
    rows = rows[(rows["repair"] == "sequential") & rows["method"].isin(PLANS)]
    lines = []
    for budget, part in sorted(rows.groupby("budget"), reverse=True):
        plans = {plan: part[part["method"] == plan] for plan in PLANS}
        plans = {plan: own for plan, own in plans.items() if len(own)}
        for plan, own in plans.items():
            over, lead = (
                "" if one is other else gained(one, other)
                for one, other in ((own, plans["allocation"]), (plans["ppo"], own))
            )
            seeds = str(len(own))
            lines.append([f"{budget:.2f}", PLANS[plan], seeds, mean(own["accuracy"]), over, lead])
    head = ["flops kept", "plan", "seeds", "refitted", "gain over allocation (p)",
            "gain of `ppo` (p)"]  # fmt: skip
    return markdown(head, lines)
