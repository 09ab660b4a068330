"""How many plans a GPU evaluates in a second, cut one by one and masked at the dense widths.

    python -m benchmarks.evaluation_rate --images FOLDER --checkpoint final.safetensors

The same plans, of half and of a third of the flops, in both ways: 500 images, Gram compensation,
as the presets score plans.  `together`: plans that are given at once.  `difference`: of the rewards
between the ways, the largest, in parts of the spread of the rewards.  Then whole searches, the time
of the agent included.  Each figure is one row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.after_repair import setting_of
from benchmarks.harness import Setting, append, existing, options
from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import KIND, calibration_of, run
from gnnrl.checkpoint import Checkpoint
from gnnrl.evaluation.base import Plan
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.measurement.running import machine_of
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device
from gnnrl.search.build import mixed
from gnnrl.search.spaces.channels import ChannelSpace

FIRST = 100
"""Images that give the statistics of norms, as in the presets."""


def evaluator(setting: Setting, statistics_images: int) -> OneShot:
    """Return what scores plans on the reward images."""
    found = calibration_of(setting, 0)
    images, labels = mixed(setting.reward, 0)
    how = RewardSettings(
        kind=KIND, statistics="matched", statistics_images=statistics_images, compensation="gram",
        precision="bfloat16",
    )  # fmt: skip
    solve = GramSolve(setting.graph, found.calibration)
    return OneShot(Surgeon(setting.network, setting.graph), images, labels, how, compensate=solve)


def plans_of(setting: Setting, number: int) -> list[Plan]:
    """Return plans of half and of a third of the flops, in turn."""
    found = calibration_of(setting, 0)
    generator = torch.Generator().manual_seed(0)
    spaces = [ChannelSpace(setting.graph, found.importance, b) for b in (0.5, 0.33)]
    return [spaces[k % 2].sample(generator) for k in range(number)]


def timed(score: OneShot, plans: Sequence[Plan], together: int) -> tuple[float, np.ndarray]:
    """Return the seconds of all plans, so many given at once, and their rewards."""
    parts = [plans[k : k + together] for k in range(0, len(plans), together)]
    score(parts[0])
    start = time.perf_counter()
    rewards = [found.reward for part in parts for found in score(part)]
    return time.perf_counter() - start, np.array(rewards)


def main() -> None:
    parser = options(__doc__, "evaluation_rate.csv", data=False)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True)
    parser.add_argument("--plans", type=int, default=64)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--methods", nargs="+", default=["ppo", "evolution", "annealing"])
    given = parser.parse_args()
    for place in given.checkpoint:
        checkpoint = Checkpoint.load(existing(place, "--checkpoint"))
        setting = setting_of(checkpoint, given.images)
        named = {"checkpoint": checkpoint.digest[:12], "machine": machine_of(device()),
                 "torch": torch.__version__}  # fmt: skip
        plans = plans_of(setting, given.plans)
        for images in (FIRST, 0):
            cut, masked = (evaluator(setting, images) for _ in range(2))
            masked.run_masked()
            few = plans[: given.plans // 4]
            seconds, rewards = timed(cut, few, 1)
            write(given.out, named, f"cut, statistics of {images}", 1, len(few) / seconds)
            for together in (1, 8, 32):
                seconds, found = timed(masked, plans, together)
                off = float(np.abs(found[: len(few)] - rewards).max() / rewards.std())
                way = f"masked, statistics of {images}"
                write(given.out, named, way, together, len(plans) / seconds, off)
        for name in given.methods:
            run(setting, METHODS[name], 0.33, "gram", 1, 60)
            figures, _ = run(setting, METHODS[name], 0.33, "gram", 0, given.evaluations)
            rate = figures["plans"] / figures["search_seconds"]
            write(given.out, named, f"search by {name}", 8, rate)


def write(
    out: Path, named: dict[str, str], way: str, together: int, rate: float, off: float | str = ""
) -> None:
    """Write one row."""
    row = {**named, "way": way, "together": together, "per_second": round(rate, 1),
           "difference": off if off == "" else round(float(off), 4)}  # fmt: skip
    append(out, row)
    print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
