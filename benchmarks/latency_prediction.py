"""Predicted against measured latency of random plans, in every runtime.

    python -m benchmarks.latency_prediction
    python -m benchmarks.latency_prediction --networks resnet20 --runtimes onnxruntime --plans 30

For each network, runtime and batch size a latency table is measured; then random plans, of other
widths and depths than those that corrected the table, are timed in turns with the dense network.
Each plan is one row; a combination that has rows is not repeated.  The summary has the relative
error of the latency over the dense network's (`ratio`), which is what a budget limits, and of the
milliseconds (`absolute`).  Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pandas as pd
import torch

from benchmarks.harness import append, done, options
from gnnrl.graph.budget import Budget
from gnnrl.graph.extract import extract
from gnnrl.graph.latency import LatencyTable, predicted
from gnnrl.measurement.latency import time_networks
from gnnrl.measurement.latency_table import RATIOS, plans_of, table_of
from gnnrl.measurement.runtimes import RUNTIMES
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.joint import JointSpace
from gnnrl.search.spaces.registry import build_space

SpaceOfWidths = ChannelSpace | JointSpace

NETWORKS = {
    "resnet20": (3, 32, 32),
    "resnet56": (3, 32, 32),
    "torchvision/resnet18": (3, 224, 224),
    "torchvision/mobilenet_v2": (3, 224, 224),
}
KEYS = ("network", "runtime", "batch_size", "threads")


def surgeon_of(name: str) -> Surgeon:
    """Return a network with fresh weights: they do not change how long it takes."""
    network = build_network(name, 10, NETWORKS[name]).eval().to(device())
    return Surgeon(network, extract(network, torch.zeros(1, *NETWORKS[name], device=device())))


def space_of(kind: str, surgeon: Surgeon, table: LatencyTable, asked: float) -> SpaceOfWidths:
    """Return a space of a network's plans that take at most a fraction of its latency.

    kind: `channels` or `joint`.  Raises `UserError` where none does.
    """
    space = build_space(
        kind, graph=surgeon.graph, importance=l1(surgeon.network, surgeon.graph),
        budget=Budget(latency=asked), table=table, multiple=table.multiple,
    )  # fmt: skip
    assert isinstance(space, SpaceOfWidths)
    return space


def measured(surgeon: Surgeon, key: tuple, given: argparse.Namespace) -> Iterator[dict]:
    """Yield a row for each random plan of one combination."""
    name, runtime, size, threads = key
    table = table_of(surgeon, size, given.rounds, runtime, threads, given.subnets)
    graph, skipped = surgeon.graph, len(RATIOS)
    plans = [PruningPlan(), *plans_of(graph, given.plans + skipped, table.multiple, 1)[skipped:]]
    networks = {i: surgeon.cut(plan) for i, plan in enumerate(plans)}
    taken = time_networks(networks, NETWORKS[name], size, 4 * given.rounds, runtime, threads)
    told = [predicted(graph, table, plan) for plan in plans]
    for i, plan in enumerate(plans[1:], start=1):
        yield {
            **dict(zip(KEYS, key, strict=True)),
            "plan": i,
            "removed_layers": len(plan.removed_layers),
            "predicted": round(told[i], 5),
            "measured": round(taken[i].milliseconds, 5),
            "spread": round(taken[i].spread, 4),
            "predicted_ratio": round(told[i] / told[0], 5),
            "measured_ratio": round(taken[i].over(taken[0]).milliseconds, 5),
            "multiple": table.multiple,
            "machine": f"{table.device} {table.machine}",
            "torch": torch.__version__,
        }


def summary(every: pd.DataFrame) -> pd.DataFrame:
    """Return errors, their 90th percentile, and the rank correlation of every combination."""
    lines = []
    for key, rows in every.groupby(list(KEYS), observed=True):
        line = dict(zip(KEYS, key, strict=True)) | {"plans": len(rows)}
        for what, suffix in (("ratio", "_ratio"), ("absolute", "")):
            told, taken = rows[f"predicted{suffix}"], rows[f"measured{suffix}"]
            error = (told / taken - 1).abs()
            line[f"{what} median"], line[f"{what} p90"] = error.median(), error.quantile(0.9)
            line[f"{what} rank"] = told.corr(taken, method="spearman")
        lines.append({**line, "spread": rows["spread"].median()})
    return pd.DataFrame(lines)


def main() -> None:
    parser = options(__doc__, "latency_prediction.csv", data=False)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--subnets", type=int, default=16, help="that correct the table")
    parser.add_argument("--rounds", type=int, default=15, help="of operations; subnets: four times")
    given = parser.parse_args()
    for name in given.networks:
        surgeon = surgeon_of(name)
        for runtime in given.runtimes:
            for size in given.batches:
                key = (name, runtime, size, given.threads)
                if not done(given.out, dict(zip(KEYS, key, strict=True))):
                    append(given.out, *measured(surgeon, key, given))
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(summary(pd.read_csv(given.out)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
