"""Half of the latency asked for: what is measured.

    python -m benchmarks.latency_budget
    python -m benchmarks.latency_budget --networks resnet20 --asked 0.5 0.33

For each network a latency table of ONNX Runtime is measured (one image, one thread).  Plans within
the budget, uniform and random ones, of channels alone and of channels and layers, are then timed in
turns with the dense network.  Each plan is one row; a run that has rows is not repeated.
`measured`: the median, round by round, of subnet over dense network.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from benchmarks.harness import append, done, options
from benchmarks.latency_prediction import NETWORKS, SpaceOfWidths, space_of, surgeon_of
from gnnrl.errors import UserError
from gnnrl.graph.latency import LatencyTable
from gnnrl.measurement.latency import time_networks
from gnnrl.measurement.latency_table import table_of
from gnnrl.measurement.runtimes import RUNTIMES
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon

SPACES = ("channels", "joint")
FIGURES = ("predicted", "measured", "spread", "flops_kept", "dense_milliseconds")
OUT_OF_REACH = "out of reach"
"""In place of plans, where a space has none within the budget."""

KEYS = ("network", "runtime", "batch_size", "threads", "space", "asked")


def plans(space: SpaceOfWidths, number: int) -> dict[str, PruningPlan]:
    """Return the controls and random plans of a space, all within its budget."""
    generator = torch.Generator().manual_seed(0)
    found = {f"random {i}": space.sample(generator) for i in range(number)}
    return {**space.controls(), **found}


def made_on(table: LatencyTable) -> dict[str, object]:
    """Return the columns that say what a table was made on."""
    machine = f"{table.device} {table.machine}"
    return {"multiple": table.multiple, "machine": machine, "torch": torch.__version__}


def measured(
    surgeon: Surgeon, table: LatencyTable, key: tuple, given: argparse.Namespace
) -> Iterator[dict]:
    """Yield a row for each plan of one network, space and budget."""
    name, runtime, size, threads, kind, asked = key
    try:
        space = space_of(kind, surgeon, table, asked)
    except UserError as error:
        print(f"{name} {kind}: {error}")
        yield {**dict(zip(KEYS, key, strict=True)), "plan": OUT_OF_REACH,
               **dict.fromkeys(FIGURES), **made_on(table)}  # fmt: skip
        return
    found = plans(space, given.plans)
    networks = {"dense": surgeon.network, **{k: surgeon.cut(plan) for k, plan in found.items()}}
    taken = time_networks(networks, NETWORKS[name], size, given.rounds, runtime, threads)
    for plan in found:
        ratio = taken[plan].over(taken["dense"])
        yield {
            **dict(zip(KEYS, key, strict=True)),
            "plan": plan,
            "predicted": round(space.used(found[plan]), 4),
            "measured": round(ratio.milliseconds, 4),
            "spread": round(ratio.spread, 4),
            "flops_kept": round(space.cost(found[plan]).flops / space.dense.flops, 4),
            "dense_milliseconds": round(taken["dense"].milliseconds, 4),
            **made_on(table),
        }


def main() -> None:
    parser = options(__doc__, "latency_budget.csv", data=False)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--asked", type=float, nargs="+", default=[0.5])
    parser.add_argument("--plans", type=int, default=5, help="random plans of each space")
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    for name in given.networks:
        keys = [
            (name, given.runtime, given.batch, given.threads, space, asked)
            for asked in given.asked
            for space in SPACES
        ]
        keys = [k for k in keys if not done(given.out, dict(zip(KEYS, k, strict=True)))]
        if not keys:
            continue
        surgeon = surgeon_of(name)
        table = table_of(surgeon, given.batch, 15, given.runtime, given.threads)
        for key in keys:
            for row in (rows := list(measured(surgeon, table, key, given))):
                print(name, row["space"], row["plan"], row["predicted"], row["measured"])
            append(given.out, *rows)


if __name__ == "__main__":
    main()
