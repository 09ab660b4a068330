"""A vision transformer right after the cut, without training: which repair, which plan.

    python -m stages.pretrain …        (vit_patch4 trained on CIFAR-10: a checkpoint)
    python -m benchmarks.transformer_repair --images FOLDER --checkpoint final.safetensors

Plans: `uniform` (the same fraction of every group of heads and hidden units), the analytic
allocation, and what the agents find with the Gram reward on 500 of the test images.  Repairs of
each plan, on the same 1,024 training images without labels: none, the mean of the lost inputs in
the next bias (`mean_shift`, as VBP, ICCV 2025), ridge regression on Gram matrices (`gram`, as
GRAIL, CPAL 2026), and layer by layer on the subnet's own inputs (`sequential`).  All are measured
on the other test images.  Beside them stands
Torch-Pruning with Taylor importance and one ratio for all layers (`--torch-pruning`: the folder it
is installed in), pruned step by step until this library counts as many flops.  A run that has a
row is not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from benchmarks.after_repair import REFIT_IMAGES, setting_of
from benchmarks.harness import Setting, append, correct, done, existing, options, packed
from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import run
from benchmarks.torch_pruning_taylor import add_option, stepwise
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images, mirrored
from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import analyse
from gnnrl.measurement.running import machine_of
from gnnrl.pruning.compensation.gram import SOLVES, Solved
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device, generator

PLANS = ("uniform", "allocation", "solver", "evolution", "ppo")
REPAIRS = ("none", *SOLVES, "sequential")
TAYLOR = "torch-pruning taylor"
KEYS = ("checkpoint", "budget", "evaluations", "method", "repair", "seed")


def repaired(setting: Setting, plan: PruningPlan, how: str, seed: int) -> nn.Module:
    """Return the subnet of a plan, repaired on training images, half of them mirrored."""
    surgeon, own = Surgeon(setting.network, setting.graph), generator(seed, "compensation")
    if how == "none":
        return surgeon.cut(plan)
    drawn = calibration_images(setting.train, REFIT_IMAGES, seed, device())
    drawn = mirrored(drawn, own)
    if how == "sequential":
        return compensate(surgeon, plan, drawn, own)
    return Solved(surgeon, how, drawn, own)(plan)


def flops(network: nn.Module) -> int:
    """Multiply-accumulates of one image, as this library counts them; PyTorch's own counter does
    not see the fast path of `nn.MultiheadAttention`."""
    return cost(analyse(network, torch.zeros(1, 3, 32, 32, device=device())).graph).flops


def taylor(setting: Setting, budget: float, seed: int) -> nn.Module:
    """Return what Torch-Pruning leaves within a fraction of the flops.  Raises `UserError`."""
    limit = budget * flops(setting.network)
    return stepwise(setting, lambda network: flops(network) <= limit, seed)


def write(setting: Setting, key: tuple, network: nn.Module, search: object, out: Path) -> None:
    """Measure a network on the unseen images and append its row."""
    right = correct(network.eval(), setting.report)
    figures = {
        "flops_kept": round(flops(network) / flops(setting.network), 4),
        "parameters": sum(p.numel() for p in network.parameters()),
        "search_seconds": search,
        "accuracy": float(right.mean()),
        "report_images": len(right),
        "torch": torch.__version__,
        "machine": machine_of(device()),
        "correct": packed(right),
    }
    append(out, {**dict(zip(KEYS, key, strict=True)), **figures})
    print(*key[1:], figures["flops_kept"], round(figures["accuracy"], 4), flush=True)


def compare(setting: Setting, given: argparse.Namespace, digest: str, budget: float, seed: int):
    """Write the rows of one budget and seed."""
    for name in given.methods:
        spend = 0 if name == TAYLOR else METHODS[name].evaluations or given.evaluations
        repairs = ("none",) if name == TAYLOR else given.repairs
        keys = [(digest, budget, spend, name, how, seed) for how in repairs]
        left = [k for k in keys if not done(given.out, dict(zip(KEYS, k, strict=True)))]
        if left and name == TAYLOR:
            try:
                write(setting, left[0], taylor(setting, budget, seed), None, given.out)
            except UserError as error:  # it does not come so far
                print(*left[0][1:], "left out:", error, flush=True)
        elif left:
            figures, found = run(setting, METHODS[name], budget, "gram", seed, given.evaluations)
            for key in left:
                subnet = repaired(setting, found.plan, key[4], seed)
                write(setting, key, subnet, figures["search_seconds"], given.out)


def main() -> None:
    parser = options(__doc__, "transformer_repair.csv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.7, 0.5, 0.33])
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, TAYLOR), default=list(PLANS))
    parser.add_argument("--repairs", nargs="+", choices=REPAIRS, default=list(REPAIRS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    add_option(parser)
    given = parser.parse_args()
    checkpoint = Checkpoint.load(existing(given.checkpoint, "--checkpoint"))
    setting, digest = setting_of(checkpoint, given.images), checkpoint.digest[:12]
    dense = (digest, 1.0, 0, "dense", "none", 0)
    if not done(given.out, dict(zip(KEYS, dense, strict=True))):
        write(setting, dense, setting.network, None, given.out)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for budget in given.budgets:
            compare(setting, given, digest, budget, seed)


if __name__ == "__main__":
    main()
