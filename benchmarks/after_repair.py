"""Is a search worth its cost after repair: all controls from the same starting point.

    python -m stages.pretrain …        (a network adapted to the images: a checkpoint)
    python -m benchmarks.after_repair --images FOLDER --checkpoint final.safetensors --seeds 0 1 2

The reward is the Jensen-Shannon divergence from the dense network on 500 of the test images, with
Gram compensation.  The plan that a method finds is then refitted layer by layer, without labels,
and measured on the other test images.  Every method has the same order of channels, the same
calibration images and the same reward images; all but the two without a search may spend the same
evaluations, the calibration pass included.  Each run is one row; a run that has a row is not
repeated.  `spent`: evaluation equivalents of the run.  `accuracy_one_shot`: with Gram
compensation; `accuracy`: after refitting; `correct`: images classified correctly, as bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import Setting, append, correct, done, existing, options, packed, unseen
from benchmarks.pruning_final import refitted
from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import KIND, measure, run
from gnnrl.checkpoint import Checkpoint
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.extract import extract
from gnnrl.measurement.running import machine_of
from gnnrl.runtime import device

COMPARED = (
    "uniform in blocks",
    "allocation",
    "solver",
    "random around allocation",
    "evolution",
    "evopress",
    "annealing",
    "ppo",
)
KEYS = ("checkpoint", "budget", "evaluations", "method", "seed")
FIGURES = ("flops_kept", "spent", "plans", "reward", "search_seconds")
"""Columns of the search."""

REFIT_IMAGES = 1024


def setting_of(checkpoint: Checkpoint, images: Path) -> Setting:
    """Return the network, its graph and its images: 500 for the reward, the others unseen."""
    splits = unseen(images, checkpoint.input_shape)
    network = checkpoint.restore().eval()
    graph = extract(network, torch.zeros(1, *checkpoint.input_shape))
    return Setting(network.to(device()), graph, splits.train, splits.reward, splits.test)


def one(setting: Setting, key: tuple, out: Path) -> None:
    """Write the row of one run."""
    _, budget, evaluations, name, seed = key
    figures, found = run(setting, METHODS[name], budget, "gram", seed, evaluations)
    one_shot = measure(setting, found.plan, "gram", seed)
    subnet = refitted(setting, found.plan, REFIT_IMAGES, seed)
    write(setting, key, figures, one_shot["accuracy"], subnet, out)


def write(
    setting: Setting,
    key: tuple,
    figures: Mapping[str, object],
    one_shot: object,
    network: nn.Module,
    out: Path,
) -> None:
    """Measure a network on the unseen images and append its row."""
    right = correct(network.eval(), setting.report)
    measured = {
        "accuracy_one_shot": one_shot,
        "accuracy": float(right.mean()),
        "report_images": len(right),
        "reward_kind": KIND,
        "precision": RewardSettings(precision="auto").precision,
        "torch": torch.__version__,
        "machine": machine_of(device()),
        "correct": packed(right),
    }
    append(out, {**dict(zip(KEYS, key, strict=True)), **figures, **measured})
    print(*key[1:], one_shot, round(measured["accuracy"], 4), flush=True)


def main() -> None:
    parser = options(__doc__, "after_repair.csv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.33])
    parser.add_argument("--evaluations", type=int, nargs="+", default=[80, 300])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(COMPARED))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    checkpoint = Checkpoint.load(existing(given.checkpoint, "--checkpoint"))
    setting = setting_of(checkpoint, given.images)
    dense = (checkpoint.digest[:12], 1.0, 0, "dense", 0)
    if not done(given.out, dict(zip(KEYS, dense, strict=True))):
        write(setting, dense, dict.fromkeys(FIGURES), None, setting.network, given.out)
    for budget in given.budgets:
        for evaluations in given.evaluations:
            for seed in given.seeds:
                for name in given.methods:
                    spend = METHODS[name].evaluations or evaluations
                    key = (dense[0], budget, spend, name, seed)
                    if not done(given.out, dict(zip(KEYS, key, strict=True))):
                        one(setting, key, given.out)


if __name__ == "__main__":
    main()
