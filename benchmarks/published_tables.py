"""Write the tables of the README and of docs/ from the rows in `benchmarks/results/`.

    python -m benchmarks.published_tables
    python -m benchmarks.published_tables --folder benchmarks/tables     (each as a file)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.  A test fails where a page differs
from what this writes, so that no published number is copied by hand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from benchmarks import (
    early_compression_table,
    early_rewards,
    encoder_decoder,
    joint_tables,
    latency_tables,
    layer_removal,
    network_tables,
    pretrained,
    repair_tables,
    transformer_tables,
)
from benchmarks.harness import KEYS
from benchmarks.pruning_table import chance, gain, mean, rows_of
from examples.federated import rounds
from gnnrl.report.sweep import markdown, spread

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "federated" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
CONTROLS = ("allocation", "random in blocks", "uniform in blocks")
NAMES = {"resnet56": "ResNet-56", "resnet20": "ResNet-20"}
KINDS = {"none": "batch norm re-estimated", "gram": "Gram compensation", "refit": "layers refitted"}
COMPARED = (
    ("none", "resnet56", 0.5),
    ("none", "resnet56", 0.33),
    ("none", "resnet20", 0.5),
    ("none", "resnet20", 0.33),
    ("gram", "resnet56", 0.5),
    ("gram", "resnet56", 0.33),
    ("gram", "resnet20", 0.33),
    ("refit", "resnet56", 0.5),
    ("refit", "resnet56", 0.33),
    ("refit", "resnet20", 0.33),
)


@cache
def pruning(stage: str) -> pd.DataFrame:
    """Return the pruning runs: `refit`, or one-shot with the compensation of that name."""
    if stage == "refit":
        return rows_of(RESULTS / "pruning_refit.csv")
    rows, earlier = (rows_of(RESULTS / f"pruning_search_{n}.csv") for n in (80, 40))
    rows = pd.concat([rows, earlier[earlier["method"] == "allocation"]])  # it needs one evaluation
    rows = rows.drop_duplicates(list(KEYS))
    return rows[rows["compensation"] == stage]


def comparison(stage: str, network: str, budget: float) -> list[str]:
    """Return a line: `ppo`, its controls, and its gain over them with p over seeds and images."""
    rows = pruning(stage)
    rows = rows[(rows["network"] == network) & (rows["budget"] == budget)]
    # the allocation does not depend on the reward, its rows carry an older one
    scored = rows[(rows["kind"] == "jensen_shannon") | (rows["method"] == "allocation")]
    by_method = {name: scored[scored["method"] == name] for name in ("ppo", *CONTROLS)}
    cells = [
        f"{NAMES[network]}, {budget:.2f}, {KINDS[stage]}",
        f"**{mean(by_method['ppo']['accuracy'])}**",
    ]
    gains = []
    for name in CONTROLS:
        other = by_method[name]
        cells.append(mean(other["accuracy"]) if len(other) else "not run")
        if len(other):
            points, _, p, _ = gain(by_method["ppo"], other)
            gains.append((name, f"{points:+.1f} ({chance(p)})", points))
    known = {name: words for name, words, _ in gains}
    blind = min((g for g in gains if g[0] != "allocation"), key=lambda g: g[2])
    return [*cells, known.get("allocation", ""), blind[1]]


def comparisons() -> str:
    """Return the table of searches against their controls."""
    head = ["network, flops kept, repair", "`ppo`", "allocation", "random", "uniform"]
    head += ["gain over allocation (p)", "over the better of random, uniform (p)"]
    return markdown(head, [comparison(*key) for key in COMPARED])


def graph() -> str:
    """Return what the features and the edges of the graph contribute."""
    here, there = pruning("none"), rows_of(RESULTS / "pruning_transfer.csv")
    here = here[(here["network"] == "resnet20") & (here["budget"] == 0.5)]
    lines = []
    for method, says in {
        "ppo": "`ppo`",
        "ppo, features blanked": "features blanked (only the shape of the graph is left)",
        "ppo, no message passing": "no message passing (each node sees its own features)",
        "allocation": "no agent: the allocation",
    }.items():
        own = here[here["method"] == method]
        if method != "allocation":
            own = own[(own["kind"] == "jensen_shannon") & (own["seed"] < 5)]
        name = (
            "ppo learned on nothing" if method == "allocation" else f"{method} learned on resnet20"
        )
        moved = there[there["method"] == name]
        if method != "allocation":
            moved = moved[moved["kind"] == "jensen_shannon"]
        lines.append([says, mean(own["accuracy"]), mean(moved["accuracy"])])
    return markdown(["agent", "ResNet-20, 0.50", "moved to ResNet-56, no evaluation there"], lines)


def rewards() -> str:
    """Return how well each reward ranks plans."""
    rows = pd.read_csv(RESULTS / "reward_kinds.csv")
    kinds = [kind for kind in rows["kind"].unique() if not kind.startswith("accuracy on")]
    lines = []
    for kind in kinds:
        own = rows[rows["kind"] == kind].set_index("budget")["rank_correlation"]
        lines.append([f"`{kind}`", *(f"{own[budget]:.2f}" for budget in (0.5, 0.33))])
    return markdown(["reward", "flops 0.50", "flops 0.33"], lines)


def cost() -> str:
    """Return the time of an evaluation and of an update."""
    rows = pd.read_csv(RESULTS / "evaluation.csv").set_index("figure")
    rows = rows[rows["fastest"].notna()]
    words = {
        "evaluation, plain": "evaluation, straightforward implementation",
        "evaluation, float32": "evaluation, float32",
        "evaluation, bfloat16": "evaluation, bfloat16",
        "evaluation, folded": "evaluation, bfloat16, `statistics_images: 100`",
        "evaluation, around the network": "of an evaluation: all but the forward pass",
        "update of ppo": "one update of `ppo`",
    }
    lines = [[says, f"{rows.loc[name, 'fastest']:.3g}", f"{rows.loc[name, 'median']:.3g}"]
             for name, says in words.items()]  # fmt: skip
    return markdown(["ResNet-56, one thread", "fastest, s", "median, s"], lines)


def early(name: str, thesis: bool = False, levels: bool = False) -> str:
    """Return the table of early compression and comparisons: of criteria with their shuffles, or
    of searchers with random at each sparsity (levels)."""
    rows = pd.read_csv(RESULTS / name)
    compare = early_compression_table.levels if levels else early_compression_table.shuffles
    listed = "\n".join(f"- {line}" for line in compare(rows).splitlines())
    return f"{early_compression_table.table(rows, thesis)}\n\n{listed}".rstrip()


def layers(name: str) -> str:
    """Return size against accuracy of students."""
    path = RESULTS / name
    rewards = pd.read_csv(path).drop_duplicates(["method", "seed"]).groupby("method")["best_reward"]
    sizes = (2.0, 4.0, 6.0, 8.0)
    lines = []
    for method, found in layer_removal.table(path).items():
        own = rewards.get_group(method)
        cells = [f"`{method}`" if method in layer_removal.AGENTS else method]
        cells += [str(len(own)), spread(own, 3, ddof=0)]
        for size in sizes:
            runs = found[size]
            if not runs:
                cells.append("–")
                continue
            average, deviation = layer_removal.spread(runs)
            few = "" if len(runs) == len(own) else f", {len(runs)} of {len(own)} runs"
            around = f" ± {deviation:.1f}" if len(runs) > 1 else ""
            cells.append(f"{average:.1f}{around}{few}")
        lines.append(cells)
    return markdown(["method", "runs", "best reward", *(f"{s:g}× smaller" for s in sizes)], lines)


def evaluation_rates() -> str:
    """Return how many plans a GPU evaluates in a second."""
    rows = pd.read_csv(RESULTS / "evaluation_rate.csv")
    lines = [[row.way, str(row.together), f"{row.per_second:.0f}"] for row in rows.itertuples()]
    return markdown(["way", "plans given at once", "evaluations a second"], lines)


TABLES: Mapping[str, Callable[[], str]] = {
    "headlines": repair_tables.headlines,
    "comparisons": comparisons,
    "networks": network_tables.summary,
    "networks_causes": network_tables.causes,
    "networks_listed": network_tables.listed,
    "graph": graph,
    "rewards": rewards,
    "cost": cost,
    "early_digits": lambda: early("early_compression.csv"),
    "early_cifar10": lambda: early("early_compression_cifar10.csv", thesis=True),
    "early_trained": lambda: early("early_compression_trained.csv", levels=True),
    "early_rewards": lambda: early_rewards.correlations(early_rewards.rows_of()),
    "early_spreads": lambda: early_rewards.spreads(early_rewards.rows_of()),
    "early_searched": early_rewards.exploited,
    "layers": lambda: layers("layer_removal.csv"),
    "layers_100": lambda: layers("layer_removal_100.csv"),
    "layers_cifar": lambda: layers("layer_removal_cifar.csv"),
    "layer_noise": layer_removal.noise_table,
    "early_snapshots": lambda: early("early_compression_snapshots.csv", thesis=True),
    "early_weights": lambda: early("early_compression_weights.csv", thesis=True),
    "agmc": lambda: encoder_decoder.table(pd.read_csv(RESULTS / "encoder_decoder.csv")),
    "federated": lambda: rounds.table(pd.read_csv(RESULTS / "federated.csv")),
    "evaluation_rate": evaluation_rates,
    "after_repair": repair_tables.after_repair,
    "warm": repair_tables.warm,
    "front": repair_tables.front,
    "families": lambda: pretrained.families(RESULTS / "pretrained.csv"),
    "families_refitted": lambda: pretrained.refits(RESULTS / "pretrained_refit.csv"),
    "joint": joint_tables.joint,
    "rival": joint_tables.rival,
    "transformer_repairs": transformer_tables.repairs,
    "transformer_searches": transformer_tables.searches,
    "prediction": latency_tables.prediction,
    "half": latency_tables.half,
    "processes": latency_tables.processes,
}


def rewritten(text: str) -> str:
    """Return a page with its tables made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="write each table to a file there instead")
    if (folder := parser.parse_args().folder) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, made in TABLES.items():
            (folder / f"{name}.md").write_text(f"{made()}\n", encoding="utf-8")
        return
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        if (after := rewritten(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
