"""Which reward ranks plans best: rank correlation with the accuracy on unseen images.

    python -m benchmarks.reward_kinds --network resnet20 --budgets 0.5 0.33

Plans around the allocation and, every third one, random within blocks, are scored on the reward
half of the test images by each kind of reward, and measured on the other half.  Each kind is one
row: Spearman's correlation over all plans, and the mean accuracy of the tenth of the plans that
the reward ranks highest.  The row `accuracy on unseen images` has the best tenth by accuracy.
"""

from __future__ import annotations

import dataclasses
import platform

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.harness import PUBLISHED, Setting, append, load, options
from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import measure, pruning_env
from gnnrl.evaluation.rewards import REWARDS
from gnnrl.graph.cost import cost

KINDS = ("accuracy", "loss", "divergence", "jensen_shannon")
SPREADS = (0.05, 0.1, 0.2)
"""Standard deviations of actions around the allocation, 0.5."""


def scored(setting: Setting, budget: float, plans: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the rewards of `plans` plans by kind, and their accuracies on unseen images."""
    around = pruning_env(setting, METHODS["ppo"], budget, "none", 0)
    blocks = pruning_env(setting, METHODS["random in blocks"], budget, "none", 0)
    random, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rewards: dict[str, list[float]] = {kind: [] for kind in KINDS}
    accuracies = []
    for number in range(plans):
        if number % 3 == 2:
            env, action = blocks, blocks.space.random(draw)
        else:
            env, spread = around, random.choice(SPREADS)
            action = np.clip(random.normal(0.5, spread, env.space.size), 0, 1)
        plan = env.space.plan(action)
        found = env.evaluate.measure(env.evaluate.outputs(plan), cost(env.space.graph, plan))
        for kind in KINDS:
            rewards[kind].append(REWARDS[kind](found))
        used = dataclasses.replace(setting, graph=env.space.graph)
        accuracies.append(measure(used, plan, "none", 0)["accuracy"])
    return {kind: np.array(r) for kind, r in rewards.items()}, np.array(accuracies)


def main() -> None:
    parser = options(__doc__, "reward_kinds.csv")
    parser.add_argument("--network", choices=PUBLISHED, default="resnet20")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.33])
    parser.add_argument("--plans", type=int, default=120)
    given = parser.parse_args()
    setting = load(given.network, given.images, given.weights)
    for budget in given.budgets:
        rewards, accuracies = scored(setting, budget, given.plans)
        tenth = max(1, given.plans // 10)
        for kind, found in {**rewards, "accuracy on unseen images": accuracies}.items():
            preferred = accuracies[np.argsort(-found, kind="stable")[:tenth]]
            row = {
                "network": given.network,
                "budget": budget,
                "kind": kind,
                "plans": given.plans,
                "rank_correlation": round(float(spearmanr(found, accuracies)[0]), 3),
                "accuracy_of_preferred": round(float(preferred.mean()), 4),
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
            append(given.out, row)
            print(*list(row.values())[:6], flush=True)


if __name__ == "__main__":
    main()
