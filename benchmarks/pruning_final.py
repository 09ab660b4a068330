"""What becomes of plans that `benchmarks.pruning_search` found: refit, transfer, training.

    python -m benchmarks.pruning_final refit --network resnet56 --methods uniform ppo
    python -m benchmarks.pruning_final transfer --target resnet56
    python -m benchmarks.pruning_final recovery --network resnet20 --methods uniform ppo

refit: compensates layer by layer, no labels, no training.  transfer: agents that learned on one
network plan for another without an evaluation.  recovery: trains refitted subnets.
All accuracies are of the half of the test images that no search has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import (
    KEYS,
    KIND,
    Setting,
    append,
    correct,
    done,
    load,
    measure,
    packed,
    plan_place,
    pruning_env,
)
from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.data.calibration import calibration_images, mirrored
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator, seed_everything
from gnnrl.search.loop import search
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

EPOCHS = (1, 5, 10)


def refitted(setting: Setting, plan: PruningPlan, images: int, seed: int) -> nn.Module:
    """The subnet of a plan, compensated on training images, half of them mirrored."""
    own = generator(seed, "compensation")
    drawn = calibration_images(setting.train, images, seed, torch.device("cpu"))
    return compensate(Surgeon(setting.network, setting.graph), plan, mirrored(drawn, own), own)


def refit(setting: Setting, key: tuple, options: argparse.Namespace) -> None:
    """One plan, compensated: a row."""
    plan = PruningPlan.load(plan_place(options.plans, key))
    right = correct(refitted(setting, plan, options.images, key[-1]).eval(), setting.report)
    row = {**dict(zip(KEYS, key, strict=False)), "images": options.images}
    append(options.out, {**row, "accuracy": float(right.mean()), "correct": packed(right)})
    print(*key, options.images, round(float(right.mean()), 4), flush=True)


def transfer(setting: Setting, key: tuple, options: argparse.Namespace) -> None:
    """One agent of the other network: what it plans for this one at first sight, or finds."""
    _, budget, compensation, kind, method, seed = key
    seed_everything(seed)
    env = pruning_env(setting, METHODS[method], budget, compensation, seed)
    settings = dict(METHODS[method].settings)
    agent = build_agent(METHODS[method].agent, env, seed=seed, **settings)
    source = (options.source, budget, options.learned, kind, method, seed)
    if not options.unlearned:
        adopt(agent, plan_place(options.plans, source).with_suffix(".pt"))
    if options.evaluations:
        plan = search(env, agent, evaluations=options.evaluations, batch=8, seed=seed).plan
    else:
        seen, _ = env.reset(seed=seed)
        (decision,) = agent.act([seen], generator(seed, "transfer"), greedy=True)
        plan = env.space.plan(decision.action)
    found = measure(setting, plan, compensation, seed)
    learned = "nothing" if options.unlearned else options.source
    named = {"learned_on": learned, "evaluations": options.evaluations}
    append(options.out, {**dict(zip(KEYS, key, strict=False)), **named, **found})
    print(*key, learned, options.evaluations, round(found["accuracy"], 4), flush=True)


def recovery(setting: Setting, key: tuple, options: argparse.Namespace) -> None:
    """One plan, refitted, then trained for 1, 5 and 10 epochs, each course from the start."""
    plan = PruningPlan.load(plan_place(options.plans, key))
    named = dict(zip(KEYS, key, strict=False))
    for epochs in (0, *EPOCHS):
        subnet = refitted(setting, plan, options.images, key[-1])
        if epochs:
            recipe = TrainingRecipe(
                epochs, learning_rate=options.learning_rate, schedule="one_cycle"
            )
            train(subnet, setting.train, recipe, seed=key[-1])
        right = correct(subnet.eval(), setting.report)
        row = {
            **named,
            "learning_rate": options.learning_rate,
            "epochs": epochs,
            "accuracy": float(right.mean()),
        }
        append(options.out, {**row, "correct": packed(right)})
        print(*key, epochs, round(float(right.mean()), 4), flush=True)


MODES: dict[str, Callable[[Setting, tuple, argparse.Namespace], None]] = {
    "refit": refit,
    "transfer": transfer,
    "recovery": recovery,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--source", default="resnet20", help="of transfer: learned on this one")
    parser.add_argument("--learned", default="none", help="of transfer: compensation there")
    parser.add_argument("--evaluations", type=int, default=0, help="of transfer: a search after it")
    parser.add_argument("--unlearned", action="store_true", help="of transfer: a fresh agent")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5])
    parser.add_argument("--compensation", default="gram")
    parser.add_argument("--methods", nargs="+", default=["uniform", "random", "ppo"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=0.002, help="of recovery")
    parser.add_argument("--one-look", action="store_true", help="calibration images of seed 0")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cifar10-fragment"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/data/weights"))
    parser.add_argument("--plans", type=Path, default=Path(".gnnrl/pruning_search"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.out = options.out or Path(f"benchmarks/results/pruning_{options.mode}.csv")
    setting = load(options.network, options.data, options.weights, options.one_look)
    extra = {
        "refit": ((("images", options.images),)),
        "transfer": (
            ("learned_on", "nothing" if options.unlearned else options.source),
            ("evaluations", options.evaluations),
        ),
        "recovery": (("epochs", EPOCHS[-1]),),
    }[options.mode]
    for budget in options.budgets:
        for seed in range(options.seeds):
            for name in options.methods:
                key = (options.network, budget, options.compensation, KIND, name, seed)
                if not done(options.out, key, extra):
                    MODES[options.mode](setting, key, options)


if __name__ == "__main__":
    main()
