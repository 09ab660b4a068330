"""Use what `benchmarks.pruning_search` found: refit plans, transfer agents, train subnets.

    python -m benchmarks.pruning_final refit --network resnet56 --methods uniform ppo
    python -m benchmarks.pruning_final transfer --target resnet56
    python -m benchmarks.pruning_final recovery --network resnet20 --methods uniform ppo

refit: refits the layers in sequence by least squares, without labels and without training.
transfer: agents that learned on one network plan for another one, by default without an
evaluation there.  recovery: trains refitted subnets.  All accuracies are measured on the half of
the test images that no search has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from torch import nn

from benchmarks.harness import KEYS, RESULTS, Setting, append, correct, done, load, options, packed
from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import KIND, PLANS, agent_of, measure, plan_place, pruning_env
from gnnrl.agents.transfer import adopt
from gnnrl.data.calibration import calibration_images, mirrored
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device, generator, seed_everything
from gnnrl.search.loop import search
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

EPOCHS = (1, 5, 10)


def refitted(setting: Setting, plan: PruningPlan, images: int, seed: int) -> nn.Module:
    """Return the subnet of a plan, refitted on training images, half of them mirrored."""
    own = generator(seed, "compensation")
    drawn = calibration_images(setting.train, images, seed, device())
    return compensate(Surgeon(setting.network, setting.graph), plan, mirrored(drawn, own), own)


def refit(setting: Setting, key: tuple, given: argparse.Namespace) -> None:
    """Write the row of one refitted plan."""
    plan = PruningPlan.load(plan_place(given.plans, key))
    right = correct(refitted(setting, plan, given.number, key[-1]).eval(), setting.report)
    row = {**dict(zip(KEYS, key, strict=False)), "images": given.number}
    append(given.out, {**row, "accuracy": float(right.mean()), "correct": packed(right)})
    print(*key, given.number, round(float(right.mean()), 4), flush=True)


def transfer(setting: Setting, key: tuple, given: argparse.Namespace) -> None:
    """Write the row of the plan that an agent of another network makes, or finds, for this one."""
    _, budget, compensation, kind, method, seed = key
    seed_everything(seed)
    env = pruning_env(setting, METHODS[method], budget, compensation, seed)
    agent = agent_of(METHODS[method], env, seed)
    source = (given.source, budget, given.learned, kind, method, seed)
    if not given.unlearned:
        adopt(agent, plan_place(given.plans, source).with_suffix(".pt"))
    if given.evaluations:
        plan = search(env, agent, evaluations=given.evaluations, batch=8, seed=seed).plan
    else:
        seen, _ = env.reset(seed=seed)
        (decision,) = agent.act([seen], generator(seed, "transfer"), greedy=True)
        plan = env.space.plan(decision.action)
    found = measure(setting, plan, compensation, seed)
    learned = "nothing" if given.unlearned else given.source
    named = {"learned_on": learned, "evaluations": given.evaluations}
    append(given.out, {**dict(zip(KEYS, key, strict=False)), **named, **found})
    print(*key, learned, given.evaluations, round(found["accuracy"], 4), flush=True)


def recovery(setting: Setting, key: tuple, given: argparse.Namespace) -> None:
    """Write the rows of one refitted plan, trained for 0, 1, 5 and 10 epochs, each from scratch."""
    plan = PruningPlan.load(plan_place(given.plans, key))
    named = dict(zip(KEYS, key, strict=False))
    for epochs in (0, *EPOCHS):
        subnet = refitted(setting, plan, given.number, key[-1])
        if epochs:
            recipe = TrainingRecipe(epochs, learning_rate=given.learning_rate, schedule="one_cycle")
            train(subnet, setting.train, recipe, seed=key[-1])
        right = correct(subnet.eval(), setting.report)
        row = {
            **named,
            "learning_rate": given.learning_rate,
            "epochs": epochs,
            "accuracy": float(right.mean()),
        }
        append(given.out, {**row, "correct": packed(right)})
        print(*key, epochs, round(float(right.mean()), 4), flush=True)


MODES: dict[str, Callable[[Setting, tuple, argparse.Namespace], None]] = {
    "refit": refit,
    "transfer": transfer,
    "recovery": recovery,
}


def main() -> None:
    parser = options(__doc__, "")
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
    parser.add_argument(
        "--shared-calibration", action="store_true", help="calibration images of seed 0 for all"
    )
    parser.add_argument("--number", type=int, default=1024, help="of images that refit uses")
    parser.add_argument("--plans", type=Path, default=PLANS)
    given = parser.parse_args()
    if given.out == RESULTS:
        given.out = RESULTS / f"pruning_{given.mode}.csv"
    setting = load(given.network, given.images, given.weights, given.shared_calibration)
    learned = "nothing" if given.unlearned else given.source
    further = {
        "refit": {"images": given.number},
        "transfer": {"learned_on": learned, "evaluations": given.evaluations},
        "recovery": {"epochs": EPOCHS[-1]},
    }[given.mode]
    for budget in given.budgets:
        for seed in range(given.seeds):
            for name in given.methods:
                key = (given.network, budget, given.compensation, KIND, name, seed)
                if not done(given.out, {**dict(zip(KEYS, key, strict=True)), **further}):
                    MODES[given.mode](setting, key, given)


if __name__ == "__main__":
    main()
