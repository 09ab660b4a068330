"""The time of one evaluation of BasicCNN on 1,024 images, against masking the dense network.

    python -m benchmarks.evaluation_cost

A search of early compression is 8,219 evaluations in the thesis, which took 3.2 to 3.7 seconds each
on two cores. Each plan is evaluated by masks on the dense network (float32, as in the thesis, but
without reloading files) and by ours: the subnet is sliced from weights in memory, channels last, in
float32 and bfloat16. Times are processor seconds of this process, which are
at least the time that passes on an idle machine; ranks are compared by Spearman's correlation.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.budget import Budget
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.importance import random
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import seed_everything
from gnnrl.search.spaces.filters import FilterSpace

REFERENCE = (3.2, 3.7)  # seconds per evaluation of the thesis's code on two cores
EVALUATIONS = 8219


def masked(network: nn.Module, images: Tensor) -> Callable[[PruningPlan], Tensor]:
    """Logits of the dense network whose other filters give zero; batch norm as in ours."""

    def logits(plan: PruningPlan) -> Tensor:
        x = images
        for i in range(1, 5):
            kept = torch.zeros(network.get_submodule(f"conv{i}").out_channels)
            kept[list(plan.kept[f"conv{i}"])] = 1
            for part in ("conv", "relu", "bn"):
                x = network.get_submodule(f"{part}{i}")(x)
            x = x * kept[:, None, None]
        return network.get_submodule("fc1")(x.flatten(1))

    @torch.no_grad()
    def run(plan: PruningPlan) -> Tensor:
        with batch_statistics(network):
            return logits(plan)

    return run


def measured(
    ways: dict[str, Callable[[PruningPlan], Tensor]], plans: Sequence[PruningPlan]
) -> tuple[dict[str, list[float]], dict[str, list[Tensor]]]:
    """Processor seconds and logits of every way for every plan, the ways taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    logits: dict[str, list[Tensor]] = {name: [] for name in ways}
    for plan in plans:
        for name, way in ways.items():
            start = time.process_time()
            logits[name].append(way(plan).clone())
            seconds[name].append(time.process_time() - start)
    return seconds, logits


def setting(images: int) -> tuple[nn.Module, ComputationalGraph, Tensor, Tensor]:
    """BasicCNN as initialised, on images of noise and labels that it half agrees with."""
    seed_everything(0)
    network = build_network("basic_cnn").eval()
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    x = torch.randn(images, 3, 32, 32)
    with torch.no_grad(), batch_statistics(network):
        labels = network(x).argmax(1)
    return network, graph, x, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.8])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluation_cost.csv"))
    options = parser.parse_args()
    network, graph, images, labels = setting(options.images)
    rows = []
    for sparsity in options.sparsities:
        space = FilterSpace(graph, random(network, graph), Budget(sparsity=sparsity))
        generator = torch.Generator().manual_seed(0)
        plans = [space.sample(generator) for _ in range(options.plans)]
        surgeon = Surgeon(network, graph)
        common = {"kind": "accuracy", "statistics": "batch", "batch_size": 256}
        ours = {
            name: OneShot(surgeon, images, labels, RewardSettings(precision=precision, **common))
            for name, precision in (("cut", "float32"), ("cut, bfloat16", "bfloat16"))
        }
        ways = {"masked": masked(network, images), **{n: e.logits for n, e in ours.items()}}
        seconds, logits = measured(ways, plans)
        accuracy = {
            name: [float((each.argmax(1) == labels).float().mean()) for each in found]
            for name, found in logits.items()
        }
        for name in ways:
            mean = float(np.mean(seconds[name][1:]))
            rank = stats.spearmanr(accuracy["masked"], accuracy[name]).statistic
            rows.append({"sparsity": sparsity, "way": name, "plans": len(plans),
                         "images": options.images, "seconds": round(mean, 4),
                         "rank_correlation": round(float(rank), 4),
                         "share_of_reference": round(mean / REFERENCE[0], 4),
                         "torch": torch.__version__, "machine": platform.machine()})  # fmt: skip
            print(
                f"sparsity {sparsity}, {name}: {mean:.3f} s per evaluation of {options.images} "
                f"images on one core, 1/{REFERENCE[0] / mean:.0f} of the reference's "
                f"{REFERENCE[0]} s on two, {EVALUATIONS} of them {EVALUATIONS * mean / 60:.0f} "
                f"minutes; rank correlation with masks {rank:.3f}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
