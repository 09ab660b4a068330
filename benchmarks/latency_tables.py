"""Tables of docs/latency.md from the rows of the benchmarks of latency."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.latency_prediction import KEYS, summary
from gnnrl.report.sweep import markdown

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "resnet20": "ResNet-20, 32×32",
    "resnet56": "ResNet-56, 32×32",
    "torchvision/resnet18": "ResNet-18, 224×224",
    "torchvision/mobilenet_v2": "MobileNet v2, 224×224",
}
NEAR = (0.45, 0.53)
"""Measured latency that counts as half of it."""


def prediction() -> str:
    """Return errors of the predicted latency for each network, runtime and batch size."""
    rows = pd.read_csv(RESULTS / "latency_prediction.csv")
    networks = rows["network"]
    rows = rows.assign(network=pd.Categorical(networks, [n for n in NAMES if n in set(networks)]))
    lines = []
    for _, row in summary(rows).iterrows():
        name, runtime, size, _ = (row[key] for key in KEYS)
        lines.append([
            NAMES[name], f"`{runtime}`", str(size), _percent(row["absolute median"]),
            _percent(row["absolute p90"]), f"{row['absolute rank']:.2f}",
            _percent(row["ratio median"]), _percent(row["ratio p90"]), _percent(row["spread"]),
        ])  # fmt: skip
    head = ["network", "runtime", "batch", "milliseconds: median error", "90th percentile",
            "rank correlation", "ratio: median error", "90th percentile", "spread"]  # fmt: skip
    return markdown(head, lines)


def half() -> str:
    """Return what is measured where half of the latency was asked for."""
    rows = pd.read_csv(RESULTS / "latency_budget.csv").dropna(subset=["measured"])
    rows = rows[rows["asked"] == 0.5]
    lines = []
    for name, says in NAMES.items():
        found = rows[rows["network"] == name]["measured"]
        if len(found):
            figures = [f"{value:.3f}" for value in (found.min(), found.median(), found.max())]
            lines.append([says, str(len(found)), *figures, str(found.between(*NEAR).sum())])
    window = f"in [{NEAR[0]}, {NEAR[1]}]"
    return markdown(["network", "plans", "least", "median", "most", window], lines)


def processes() -> str:
    """Return the speed of whole processes beside the promised one."""
    rows = pd.read_csv(RESULTS / "process_speed.csv").set_index("network")
    lines = []
    for name, says in NAMES.items():
        if name in rows.index:
            row = rows.loc[name]
            ratios = [row[key] for key in ("promised", "process", "images_alone")]
            seconds = [row[key] for key in ("start_seconds", "dense_seconds", "subnet_seconds")]
            lines.append([says, *(f"{r:.3f}" for r in ratios), *(f"{s:.2f}" for s in seconds)])
    head = ["network", "promised ratio", "ratio of processes", "without their start", "start, s",
            "dense, s", "subnet, s"]  # fmt: skip
    return markdown(head, lines)


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"
