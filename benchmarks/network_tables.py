"""Tables of docs/networks.md from the rows of `benchmarks.any_network`."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pandas as pd

from gnnrl.report.sweep import markdown

ROWS = Path(__file__).parent / "results" / "any_network.csv"
FAMILIES = {
    "torchvision: classification": r"torchvision/",
    "torchvision: segmentation": r"torchvision\.segmentation/",
    "torchvision: video": r"torchvision\.video/",
    "torchvision: optical flow": r"torchvision\.optical_flow/",
    "torchvision: quantisable": r"torchvision\.quantization/",
    "timm: the smallest of each family": r"timm/",
    "Hugging Face, from a configuration": r"transformers/",
    "built-in": r"[^/]+$",
}
MOSTLY = 0.8
"""Fraction of the flops from which on a network counts as mostly prunable."""
SHORT = {
    "pruned exactly": "exact",
    "part left whole": "exact, part left whole",
    "nothing to prune": "nothing to prune",
}


@cache
def rows() -> pd.DataFrame:
    """Return the measured networks."""
    return pd.read_csv(ROWS, dtype=str, keep_default_na=False)


def summary() -> str:
    """Return how many networks of each library are pruned, and how."""
    head = ["networks", "number", "exact", "exact, part left whole", "of these ≥ 80 % of the flops",
            "refused", "wrong, crash, time or memory limit", "ONNX agrees",
            "Torch-Pruning passes"]  # fmt: skip
    table = rows()
    lines = []
    for name, form in FAMILIES.items():
        found = table[table["network"].str.match(form)]
        if len(found):
            lines.append(_counted(name, found))
    return markdown(head, [*lines, _counted("together", table)])


def _counted(name: str, found: pd.DataFrame) -> list[str]:
    kinds = found["kind"]
    cut = found[kinds.isin(("pruned exactly", "part left whole")) & (found["reachable"] != "")]
    mostly = (cut["reachable"].astype(float) >= MOSTLY).sum()
    failed = kinds.isin(("wrong", "crash", "time limit", "memory limit")).sum()
    onnx, rival = (found[column][found[column] != ""] for column in ("onnx", "torch_pruning"))
    return [name, str(len(found)), str((kinds == "pruned exactly").sum()),
            str((kinds == "part left whole").sum()), f"{mostly} of {len(cut)}",
            str((kinds == "refused").sum()), str(failed),
            _passed(onnx), _passed(rival)]  # fmt: skip


def _passed(found: pd.Series) -> str:
    """Return how many pass of those that were tried."""
    return f"{found.str.match('yes|pass').sum()} of {len(found)}" if len(found) else "–"


def causes() -> str:
    """Return why parts are left whole, networks refused or not cut, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for _, row in rows().iterrows():
        for cause in {_without_count(each) for each in row["why"].split("; ") if each}:
            counts[row["kind"], cause] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [[kind, f"`{why}`" if len(why) < 60 else why, str(n)] for (kind, why), n in ordered]
    return markdown(["what happens", "why", "networks"], lines)


def _without_count(cause: str) -> str:
    return re.sub(r" \(\d+\)$", "", cause).replace("|", "/")


def listed() -> str:
    """Return one line for each network."""
    head = ["network", "result", "flops that plans reach", "flops kept", "checkpoint", "ONNX",
            "Torch-Pruning"]  # fmt: skip
    lines = []
    for _, row in rows().iterrows():
        lines.append([
            f"`{row['network']}`", SHORT.get(row["kind"], row["kind"] or "not measured"),
            _percent(row["reachable"]), _percent(row["flops_kept"]),
            _yes(row["checkpoint"]), _yes(row["onnx"]), _yes(row["torch_pruning"]),
        ])  # fmt: skip
    return markdown(head, lines)


def _percent(text: str) -> str:
    return f"{float(text):.0%}" if text and text != "nan" else ""


def _yes(text: str) -> str:
    """Whether it passes; of errors the kind alone."""
    return "yes" if text in ("yes", "pass") else text.partition(":")[0].replace("|", "/")[:40]
