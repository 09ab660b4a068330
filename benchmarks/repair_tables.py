"""Tables of docs/results.md from the rows of `benchmarks.after_repair` and `benchmarks.front`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.pruning_table import chance, gained, images_right, mean
from gnnrl.report.sweep import markdown

RESULTS = Path(__file__).parent / "results"
CHECKPOINTS = {
    "a2648c022bb3": "ResNet-20",
    "d1ab4059ccdc": "ResNet-20, adapted again",
    "59c9cdb28037": "ResNet-56",
    "be01e69e4da9": "ResNet-56, adapted again",
}
COMPARED = {"a2648c022bb3": 80, "59c9cdb28037": 80, "be01e69e4da9": 300}
"""Networks of the README's table, with the evaluations of a search that it shows, at least."""
TRANSFORMER = "transformer_repair"
"""Rows of the ViT in that table."""
SEARCHED, SEEDS = 80, 5
"""Evaluations of the ViT's searches; seeds of `ppo` in a line, at least."""
FRONT = ("conditional ppo", "evolution", "allocation")
METHODS = {
    "uniform in blocks": "uniform in blocks",
    "allocation": "allocation (one calibration pass)",
    "allocation, depth and width": "allocation, depth and width",
    "random around allocation": "random around the allocation",
    "solver": "`solver`",
    "evolution": "`evolution` (CMA-ES)",
    "evopress": "`evopress`",
    "annealing": "`annealing`",
    "ppo": "`ppo`",
    "ppo, depth and width": "`ppo`, depth and width",
}
SEARCHES = ("random around allocation", "solver", "evolution", "evopress", "annealing", "ppo")
"""Methods in the README's table, beside the two without a search."""

STARTS = {
    ("allocation", 1): "allocation, no search",
    ("pretrained plan", 1): "first plan of the pretrained agent",
    ("pretrained", 33): "`ppo`, from the pretrained agent",
    ("ppo", 33): "`ppo`, from the plain prior",
    ("pretrained", 80): "`ppo`, from the pretrained agent",
    ("ppo", 80): "`ppo`, from the plain prior",
}
"""Lines of the table of warm starts, by method and evaluations."""


def after_repair() -> str:
    """Return what every method reaches after the layers are refitted, and its gains."""
    rows = pd.read_csv(RESULTS / "after_repair.csv")
    lines = [line for key, part in _settings(rows) for line in _methods(key, part)]
    head = ["network, flops kept", "method", "evaluations", "seeds", "one-shot", "refitted",
            "gain over allocation (p)", "gain of `ppo` (p)"]  # fmt: skip
    return markdown(head, lines)


def headlines() -> str:
    """Return, in a line for each network, budget and cost, what every method is refitted to."""
    rows, others = (pd.read_csv(RESULTS / f"{name}.csv") for name in ("after_repair", TRANSFORMER))
    others = others[others["repair"] == "sequential"]
    tables = {**dict.fromkeys(COMPARED, rows), others["checkpoint"].iloc[0]: others}
    lines = []
    for checkpoint, table in tables.items():
        own = table[(table["checkpoint"] == checkpoint) & (table["method"] != "dense")]
        own = own[own["budget"] <= 0.5]
        for (budget, spend), part in sorted(own.groupby(["budget", "evaluations"]), reverse=True):
            ours = part[part["method"] == "ppo"]
            if spend >= COMPARED.get(checkpoint, SEARCHED) and len(ours) >= SEEDS:
                free = own[(own["budget"] == budget) & (own["evaluations"] <= 1)]
                key = f"{CHECKPOINTS.get(checkpoint, 'ViT')}, {budget:.2f}", str(spend)
                lines.append([*key, *_beside(part, free)])
    searches = [METHODS[name] for name in SEARCHES]
    head = ["network, flops kept", "evaluations", "uniform", "allocation", *searches,
            "`ppo` over allocation (p)", "over the best other search (p)"]  # fmt: skip
    return markdown(head, lines)


def _beside(searched: pd.DataFrame, free: pd.DataFrame) -> list[str]:
    """Return the cells of a line: means, and the gains of `ppo`."""
    uniform = free[free["method"].str.startswith("uniform")]
    allocation = free[free["method"] == "allocation"]
    by_name = {name: searched[searched["method"] == name] for name in SEARCHES}
    ours = by_name["ppo"]
    whole = {n: p for n, p in by_name.items() if n != "ppo" and set(ours["seed"]) <= set(p["seed"])}
    best = max(whole.values(), key=lambda rows: rows["accuracy"].mean())
    cells = [mean(own["accuracy"]) if len(own) else "–"
             for own in (uniform, allocation, *by_name.values())]  # fmt: skip
    return [*cells, gained(ours, allocation), gained(ours, best)]


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


def warm() -> str:
    """Return what a search reaches that starts from the pretrained agent, beside plain ones."""
    rows = pd.read_csv(RESULTS / "after_repair.csv")
    rows = rows[(rows["checkpoint"] == "d1ab4059ccdc") & (rows["budget"] == 0.33)]
    parts = {key: rows[(rows["method"] == key[0]) & (rows["evaluations"] == key[1])]
             for key in STARTS}  # fmt: skip
    lines = []
    for key, own in parts.items():
        if len(own):
            others = [parts[key] for key in (("allocation", 1), ("ppo", 33), ("ppo", 80))]
            gains = ["" if own is other else gained(own, other) for other in others]
            figures = [mean(own["accuracy_one_shot"]), mean(own["accuracy"])]
            spent = f"{own['spent'].mean():.0f}"
            lines.append([STARTS[key], spent, str(len(own)), *figures, *gains])
    head = ["start", "evaluations", "seeds", "one-shot", "refitted", "gain over allocation (p)",
            "over the plain prior with 33 (p)", "over the plain prior with 80 (p)"]  # fmt: skip
    return markdown(head, lines)


def front() -> str:
    """Return one search for all budgets beside a search for each, of seeds that have all rows."""
    rows = pd.read_csv(RESULTS / "front.csv")
    ours, *others = FRONT
    searched = sorted(set(rows.loc[rows["method"] == "evolution", "budget"]))
    counts = rows[rows["budget"].isin(searched)].groupby("seed").size()
    rows = rows[rows["seed"].isin(counts[counts == len(FRONT) * len(searched)].index)]
    lines = []
    for budget, part in rows.groupby("budget"):
        own, *rest = (part[part["method"] == name] for name in FRONT)
        figures = [mean(each["accuracy"]) if len(each) else "" for each in (own, *rest)]
        gains = [gained(own, each) for each in rest]
        lines.append([f"{budget:.2f}", str(own["seed"].nunique()), *figures, *gains])
    means = rows[rows["budget"].isin(searched)].groupby("method")["accuracy"].mean()
    cells = [f"mean of the {len(searched)} searched", ""]
    cells += [f"{100 * means[name]:.1f}" for name in FRONT]
    for name in others:
        points = 100 * float(means[ours] - means[name])
        cells.append(f"{points:+.1f} ({mean_gain_chance(rows, searched, name)})")
    lines.append(cells)
    head = ["flops kept", "seeds", "one search (`ppo`)", "`evolution` for each", "allocation",
            "gain over `evolution` (p)", "over the allocation (p)"]  # fmt: skip
    return markdown(head, lines)


def mean_gain_chance(rows: pd.DataFrame, budgets: list[float], other: str) -> str:
    """Return p that the mean gain over a method is not positive, over seeds and images."""
    random, seeds = np.random.default_rng(0), sorted(set(rows["seed"]))
    found = rows.set_index(["method", "seed", "budget"]).sort_index()

    def right(method: str, seed: int) -> np.ndarray:
        return images_right(found.loc[[(method, seed, budget) for budget in budgets]]).mean(0)

    gaps = np.stack([right(FRONT[0], seed) - right(other, seed) for seed in seeds])  # [S, N]
    number = gaps.shape[1]
    picks = random.integers(len(seeds), size=(2000, len(seeds)))
    means = [gaps[seed][:, random.integers(number, size=number)].mean() for seed in picks]
    return chance(float((np.array(means) <= 0).mean()))
