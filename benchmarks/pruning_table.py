"""The table and the curves of `benchmarks.pruning_search`, from its rows.

    python -m benchmarks.pruning_table benchmarks/results/pruning_search_80.csv
    python -m benchmarks.pruning_table benchmarks/results/pruning_refit.csv
    python -m benchmarks.pruning_table benchmarks/results/pruning_search_80.csv \\
        benchmarks/results/pruning_transfer.csv --ours "ppo learned on resnet20"

Accuracy on the half of the test images that no search has seen: mean and standard deviation over
seeds.  The gain of our method over each other one is paired.  p is the probability that the gain
is not positive: by a bootstrap over seeds, and by one over seeds and images.  A method that does
not depend on the search seed has one row, which is compared with all seeds.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gnnrl.report.sweep import markdown, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEYS = ["network", "budget", "compensation", "kind"]
SAMPLES, BOTH = 10_000, 2000
"""Draws of a bootstrap over seeds, and of one over seeds and images."""
ACROSS = 4
"""Pictures side by side."""


def images_right(rows: pd.DataFrame) -> np.ndarray:
    """Return which images each row classifies correctly `[R, N]`; padding counts as wrong."""
    packed = [np.frombuffer(bytes.fromhex(digits), np.uint8) for digits in rows["correct"]]
    return np.unpackbits(np.stack(packed), axis=1).astype(np.int8)


def gain(ours: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float, int]:
    """Return the mean difference in points, p over seeds, p over seeds and images, pairs."""
    if len(other) == 1:
        other = other.iloc[np.zeros(len(ours), int)].assign(seed=ours["seed"].to_numpy())
    seeds = sorted(set(ours["seed"]) & set(other["seed"]))
    pair = [part.set_index("seed").loc[seeds] for part in (ours, other)]
    difference = 100 * (pair[0]["accuracy"] - pair[1]["accuracy"]).to_numpy()
    by_image = images_right(pair[0]) - images_right(pair[1])
    picks, drawn = resamples(*by_image.shape)
    over_seeds = float((difference[picks].mean(1) <= 0).mean())
    totals = by_image.astype(np.float32) @ drawn  # [S, B], whole numbers
    both = np.take_along_axis(totals.T, picks[:BOTH], axis=1).sum(1)
    return float(difference.mean()), over_seeds, float((both <= 0).mean()), len(seeds)


@cache
def resamples(seeds: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seeds drawn with replacement `[SAMPLES, S]`, and how often each image is drawn with
    the first of them `[N, B]`."""
    random = np.random.default_rng(0)
    picks = random.integers(seeds, size=(SAMPLES, seeds))
    drawn = np.empty((images, BOTH), dtype=np.float32)
    for each in range(BOTH):
        drawn[:, each] = np.bincount(random.integers(images, size=images), minlength=images)
    return picks, drawn


def mean(accuracies: pd.Series) -> str:
    """Return mean ± standard deviation, in %."""
    return spread(100 * accuracies, 1)


def chance(p: float) -> str:
    """Return a probability in as many digits as it deserves."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def gained(ours: pd.DataFrame, other: pd.DataFrame) -> str:
    """Return the mean gain in points, with p over seeds and images; empty: no seeds in common."""
    if not set(ours["seed"]) & set(other["seed"]):
        return ""
    points, _, p, pairs = gain(ours, other)
    few = "" if pairs == len(ours) == len(other) else f"; {pairs} of the seeds"
    return f"{points:+.1f} ({chance(p)}{few})"


def rows_of(path: Path) -> pd.DataFrame:
    """Read the rows of a benchmark; transferred agents count as methods of their own."""
    rows = pd.read_csv(path)
    if "images" in rows:
        rows = rows[rows["images"] == rows["images"].min()]
    if "learned_on" in rows:
        rows = rows[rows["evaluations"] == 0]
        rows = rows.assign(method=rows["method"] + " learned on " + rows["learned_on"])
    return rows if "spent" in rows else rows.assign(spent=np.nan)


def of_kind(rows: pd.DataFrame, kind: str | None) -> pd.DataFrame:
    """Return the rows with this kind of reward; None: all."""
    return rows if kind is None else rows[rows["kind"] == kind]


def table(rows: pd.DataFrame, our: str = "ppo") -> str:
    """Return the table in Markdown, a line per method with the gain of `our` method over it."""
    head = ["network", "flops", "compensation", "reward", "method", "equivalents", "seeds"]
    head += ["accuracy", f"{our}: gain", "p over seeds", "p over seeds and images"]
    lines = []
    for key, part in rows.groupby(KEYS, sort=False):
        ours = part[part["method"] == our]
        for method, own in part.groupby("method", sort=False):
            spent = f"{own['spent'].mean():.0f}" if own["spent"].notna().all() else ""
            line = [*map(str, key), str(method), spent, str(len(own))]
            line += [spread(100 * own["accuracy"], 2)]
            if method != our and len(ours):
                difference, seeds, both, pairs = gain(ours, own)
                line += [f"{difference:+.2f} ({pairs} pairs)", f"{seeds:.4f}", f"{both:.4f}"]
            else:
                line += ["", "", ""]
            lines.append(line)
    return markdown(head, lines)


def draw(curves: pd.DataFrame, path: Path) -> None:
    """Draw the best reward so far against evaluations spent, mean over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    searched = curves.groupby([*KEYS, "method"])["spent"].transform("nunique") > 5
    several = searched.groupby([curves[k] for k in KEYS]).transform("any")
    groups = list(curves[several].groupby(KEYS, sort=False))  # where something was searched
    colours = {m: f"C{i}" for i, m in enumerate(curves["method"].unique())}
    marks = {m: "oxs^"[i // 10] for i, m in enumerate(colours)}
    across = min(len(groups), ACROSS)
    down = -(-len(groups) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(5 * across, 4 * down), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(groups) :]:
        axis.remove()
    for axis, (key, part) in zip(axes.flat, groups, strict=False):
        for method, runs in part.groupby("method", sort=False):
            _line(axis, method, runs, {"color": colours[method], "marker": marks[method]})
        axis.set_title(f"{key[0]}, flops {key[1]}, compensation {key[2]}", fontsize=10)
        axis.set_xlabel("evaluation equivalents")
        axis.set_ylabel(f"best reward so far (−{key[3]})")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def _line(axis: Axes, method: str, runs: pd.DataFrame, style: dict[str, str]) -> None:
    """Draw one method: the mean and the range over its seeds."""
    grid = np.arange(1.0, runs["spent"].max() + 1)
    lines = []
    for _, run in runs.groupby("seed"):
        place = np.searchsorted(run["spent"].to_numpy(), grid, side="right") - 1
        best = run["best"].to_numpy()
        lines.append(np.where(place >= 0, best[np.maximum(place, 0)], np.nan))
    seen = np.isfinite(lines).all(0)
    known = np.array(lines)[:, seen]
    if known.shape[1] < 2:  # plans without a search: a point
        axis.scatter(runs["spent"].mean(), runs["best"].mean(), label=method, s=25, **style)
        return
    axis.plot(grid[seen], known.mean(0), label=method, markevery=15, markersize=4, **style)
    axis.fill_between(grid[seen], known.min(0), known.max(0), color=style["color"], alpha=0.15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--ours", default="ppo", help="the method that others are compared with")
    parser.add_argument("--kind", help="only runs with this reward")
    parser.add_argument("--picture", type=Path, default=Path("benchmarks/results/pruning.png"))
    options = parser.parse_args()
    files = [path for path in options.rows if not path.stem.endswith("_curves")]
    rows = pd.concat([rows_of(path) for path in files], ignore_index=True)
    print(table(of_kind(rows, options.kind), options.ours))
    paths = [p.with_name(f"{p.stem}_curves.csv") for p in files]
    known = [pd.read_csv(p) for p in paths if p.exists()]
    if known:
        draw(of_kind(pd.concat(known, ignore_index=True), options.kind), options.picture)


if __name__ == "__main__":
    main()
