"""The table and the curves of `benchmarks.pruning_search`, from its rows.

    python -m benchmarks.pruning_table benchmarks/results/pruning_search.csv

Accuracy on the report half, mean and standard deviation over seeds; the difference of `ppo` to each
other method, paired by seed, with the probability of no gain by a bootstrap over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

KEYS = ["network", "budget", "compensation"]
SAMPLES = 10_000


def score(rows: pd.DataFrame) -> pd.Series:
    """What counts: the compensated accuracy where there is one."""
    plain = rows["recalibrated"]
    return rows["compensated"].fillna(plain) if "compensated" in rows else plain


def gain(ours: pd.Series, other: pd.Series) -> tuple[float, float, int]:
    """Mean difference in points, bootstrap probability that it is not positive, pairs of seeds."""
    both = pd.concat([ours, other], axis=1, join="inner").dropna().to_numpy()
    difference = 100 * (both[:, 0] - both[:, 1])
    random = np.random.default_rng(0)
    picks = random.integers(len(difference), size=(SAMPLES, len(difference)))
    return (
        float(difference.mean()),
        float((difference[picks].mean(1) <= 0).mean()),
        len(difference),
    )


def table(rows: pd.DataFrame) -> str:
    """Markdown: a line per method."""
    lines = [
        "| network | flops | compensation | method | seeds | accuracy | ppo's gain | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = rows.assign(score=score(rows))
    for key, part in rows.groupby(KEYS, sort=False):
        by_method = {m: p.set_index("seed")["score"] for m, p in part.groupby("method")}
        for method in part["method"].unique():
            scores = by_method[method]
            spread = f" ± {100 * scores.std():.2f}" if len(scores) > 1 else ""
            line = f"| {key[0]} | {key[1]} | {key[2]} | {method} | {len(scores)} "
            line += f"| {100 * scores.mean():.2f}{spread} "
            if method != "ppo" and "ppo" in by_method:
                difference, p, pairs = gain(by_method["ppo"], scores)
                line += f"| {difference:+.2f} | {p:.4f} ({pairs} pairs) |"
            else:
                line += "| | |"
            lines.append(line)
    return "\n".join(lines)


def draw(curves: pd.DataFrame, path: Path) -> None:
    """Best reward so far against evaluation equivalents, mean over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(curves.groupby(KEYS, sort=False))
    figure, axes = pyplot.subplots(
        1, len(groups), figsize=(5 * len(groups), 4), squeeze=False, layout="constrained"
    )
    for axis, (key, part) in zip(axes[0], groups, strict=True):
        for method, runs in part.groupby("method", sort=False):
            grid = np.arange(1.0, 81.0)
            lines = []
            for _, run in runs.groupby("seed"):
                place = np.searchsorted(run["spent"].to_numpy(), grid, side="right") - 1
                best = run["best"].to_numpy()
                lines.append(np.where(place >= 0, best[np.maximum(place, 0)], np.nan))
            seen = np.isfinite(lines).any(0)
            axis.plot(grid[seen], np.nanmean(np.array(lines)[:, seen], axis=0), label=method)
        axis.set_title(f"{key[0]}, flops {key[1]}, compensation {key[2]}", fontsize=10)
        axis.set_xlabel("evaluation equivalents")
        axis.set_ylabel("best reward so far (−divergence)")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+")
    options = parser.parse_args()
    rows = pd.concat([pd.read_csv(path) for path in options.rows], ignore_index=True)
    print(table(rows))
    first = options.rows[0]
    curves = [p.with_name(f"{p.stem}_curves.csv") for p in options.rows]
    known = [pd.read_csv(p) for p in curves if p.exists()]
    if known:
        draw(pd.concat(known, ignore_index=True), first.with_suffix(".png"))


if __name__ == "__main__":
    main()
