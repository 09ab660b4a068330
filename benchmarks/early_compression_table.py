"""The tables of `benchmarks.early_compression`, from its rows.

    python -m benchmarks.early_compression_table benchmarks/results/early_compression.csv
    python -m benchmarks.early_compression_table benchmarks/results/early_compression_cifar10.csv \
        --thesis

Test accuracy in %, mean and standard deviation over seeds. "against random" is the difference from
the best of equally many random plans, paired by seed and sparsity, in points ± its standard error;
two standard errors or more count as significant. "late" are the weights after the last epoch.
`--thesis` adds the thesis's numbers (tables 5.8 and 5.5) in brackets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from gnnrl.report.sweep import markdown, spread

CLEAR = 2.0  # standard errors
THESIS: Mapping[tuple[str, str], tuple[float | None, ...]] = {
    ("magnitude", "late"): (80.41, 78.68, 71.10, None),
    ("magnitude_sign", "late"): (78.47, 77.72, 71.35, 74.24),
    ("annealing", "initial"): (78.08, 77.64, 75.97, 70.19),
    ("annealing", "epoch 1"): (79.19, 78.51, 75.75, 71.86),
    ("annealing", "epoch 3"): (79.48, 78.17, 76.02, 71.78),
    ("annealing", "late"): (79.53, 78.59, 77.31, 73.88),
    ("random", "initial"): (78.72, 76.78, 75.06, 71.83),
}
"""Filters of BasicCNN, CIFAR-10: its table 5.8."""
THESIS_WEIGHTS: Mapping[tuple[str, str], tuple[float | None, ...]] = {
    ("magnitude", "late"): (None, None, 98.48, 98.60, 98.50),
    ("magnitude_sign", "late"): (None, None, 98.47, 98.47, 98.47),
    ("annealing", "initial"): (None, None, 98.23, 97.99, 97.36),
    ("snip", "initial"): (None, None, 98.42, 98.35, 98.05),
    ("random", "initial"): (None, None, 98.18, 98.04, 97.37),
}
"""Single weights of its perceptron, MNIST: its table 5.5."""
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the name of their line: the method and the weights it searched."""
    early = np.where(rows["snapshot"] > 0, "epoch " + rows["snapshot"].astype(str), "initial")
    when = np.where((rows["snapshot"] > 0) & (rows["snapshot"] == rows["epochs"]), "late", early)
    return rows.assign(when=when, line=rows["method"] + ", " + when)


def gain(ours: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, int]:
    """Return the mean difference in points, its standard error, and the number of pairs."""
    both = ours.merge(other, on=["sparsity", "seed"], suffixes=("", "_other"))
    difference = 100 * (both["accuracy"] - both["accuracy_other"]).to_numpy()
    if len(difference) < 2:
        return float("nan"), float("nan"), len(difference)
    error = float(difference.std(ddof=1) / len(difference) ** 0.5)
    return float(difference.mean()), error, len(difference)


def verdict(mean: float, error: float) -> str:
    """Return in words whether a difference is significant, with its standard errors."""
    if not error > 0:
        return "the same" if mean == 0 else "too few runs"
    ratio = mean / error
    if abs(ratio) < CLEAR:
        return f"not significant ({ratio:+.1f} s.e.)"
    return f"{'better' if ratio > 0 else 'worse'} ({ratio:+.1f} s.e.)"


def table(rows: pd.DataFrame, thesis: bool) -> str:
    """Return the table in Markdown, a line for each method."""
    rows = named(rows)
    sparsities = sorted(rows["sparsity"].unique())
    control = rows[rows["line"] == "random, initial"]
    on_weights = rows["network"].iloc[0].startswith("mlp")
    theirs = (THESIS_WEIGHTS if on_weights else THESIS) if thesis else {}
    head = ["method, weights searched", *(f"{100 * s:.0f} %" for s in sparsities)]
    head += ["against random", "verdict"]
    lines = []
    for line in rows["line"].unique():
        part = rows[rows["line"] == line]
        cells = [_cell(part[part["sparsity"] == s], s, theirs) for s in sparsities]
        if line == "random, initial":
            lines.append([line, *cells, "", "the control"])
            continue
        mean, error, pairs = gain(part, control)
        lines.append([line, *cells, f"{mean:+.2f} ± {error:.2f} ({pairs})", verdict(mean, error)])
    return markdown(head, lines)


def _cell(
    part: pd.DataFrame, sparsity: float, theirs: Mapping[tuple[str, str], tuple[float | None, ...]]
) -> str:
    if not len(part):
        return ""
    known = theirs.get((part["method"].iloc[0], part["when"].iloc[0]), ())
    published = dict(zip(SPARSITIES, known, strict=False)).get(sparsity)
    return spread(100 * part["accuracy"], 2) + (f" [{published}]" if published else "")


def levels(rows: pd.DataFrame) -> str:
    """Compare each searcher with random at each sparsity alone."""
    rows = named(rows)
    control, lines = rows[rows["line"] == "random, initial"], []
    for line in rows["line"].unique():
        for sparsity, part in rows[rows["line"] == line].groupby("sparsity"):
            if line != "random, initial":
                mean, error, pairs = gain(part, control)
                theirs = control.loc[control["sparsity"] == sparsity, "reward"].mean()
                lines.append(f"{line}, {100 * sparsity:.0f} %: {mean:+.2f} ± {error:.2f} points "
                             f"({pairs} pairs): {verdict(mean, error)}; reward of the plan found "
                             f"{part['reward'].mean():.3f}, by random {theirs:.3f}")  # fmt: skip
    return "\n".join(lines)


def shuffles(rows: pd.DataFrame) -> str:
    """Compare each criterion with its control that keeps as many filters per layer, but any."""
    lines = []
    for method in rows["method"].unique():
        control = rows[rows["method"] == f"{method}_shuffled"]
        if len(control):
            mean, error, pairs = gain(rows[rows["method"] == method], control)
            lines.append(f"{method} against its shuffle: {mean:+.2f} ± {error:.2f} points "
                         f"({pairs} pairs): {verdict(mean, error)}")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--thesis", action="store_true", help="the thesis's numbers in brackets")
    options = parser.parse_args()
    rows = pd.read_csv(options.rows)
    kind = rows.iloc[0]
    print(
        f"{kind['data']}, {kind['network']}, {kind['epochs']} epochs, "
        f"{rows['seed'].nunique()} seeds, {rows['plans'].max()} plans for each searcher; dense "
        f"network {100 * rows['dense_accuracy'].mean():.2f} %; the narrowest layer of all "
        f"{len(rows)} subnets keeps {rows['narrowest'].min()} filter(s)"
    )
    if options.thesis:
        print(
            "in brackets the thesis: whole width, 90 epochs, all of CIFAR-10 or MNIST, best epoch"
        )
    print(f"\n{table(rows, options.thesis)}\n\n{levels(rows)}\n\n{shuffles(rows)}")


if __name__ == "__main__":
    main()
