"""One search for all budgets against a search of its own for each.

    python -m benchmarks.front --images FOLDER --checkpoint final.safetensors --seeds 5

`conditional`: one search of 240 equivalents plans for six budgets, and for those between them by
its front, without an evaluation.  `evolution`: 40 equivalents for each of the six.  Both start
from the allocation, have the same calibration pass (charged to every search), reward and repair
as `benchmarks.after_repair`.  Each plan is one row; a plan that has a row is not measured again.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch

from benchmarks.after_repair import REFIT_IMAGES, setting_of
from benchmarks.harness import Setting, append, correct, done, existing, options, packed
from benchmarks.pruning_final import refitted
from benchmarks.pruning_methods import METHODS
from benchmarks.pruning_search import KIND, agent_of, measure, pruning_env
from gnnrl.checkpoint import Checkpoint
from gnnrl.pruning.plan import PruningPlan
from gnnrl.runtime import seed_everything
from gnnrl.search.front import Front
from gnnrl.search.loop import search

BUDGETS = (0.25, 0.33, 0.4, 0.5, 0.6, 0.7)
BETWEEN = (0.29, 0.45, 0.65)
"""Budgets that are not searched."""
TOGETHER, EACH = 240, 40
"""Evaluation equivalents of the one search, and of each search for one budget."""
KEYS = ("checkpoint", "method", "seed", "budget")
PLANS = Path(".gnnrl/front")


@cache
def conditional(setting: Setting, agent: str, seed: int) -> Front:
    """Return the front of one search for all budgets."""
    seed_everything(seed)
    method = METHODS[agent]
    env = pruning_env(setting, method, BUDGETS[0], "gram", seed, BUDGETS[1:])
    chosen = agent_of(method, env, seed)
    env.controls = env.comparisons()
    front = search(env, chosen, evaluations=TOGETHER, batch=8, seed=seed).front
    assert front is not None
    return front


def plan_of(setting: Setting, method: str, seed: int, budget: float) -> PruningPlan:
    """Return the plan of a method for a budget; it is kept on disk."""
    place = PLANS / f"{setting.graph.digest[:12]}-{method.replace(' ', '_')}-{seed}-{budget}.json"
    if place.exists():
        return PruningPlan.load(place)
    agent = method.removeprefix("conditional ")
    if agent != method:
        front = conditional(setting, agent, seed)
        for other in (*BUDGETS, *BETWEEN):
            name = place.name.replace(f"-{budget}.json", f"-{other}.json")
            front.plan_for(setting.graph, other).save(place.with_name(name))
        return front.plan_for(setting.graph, budget)
    seed_everything(seed)
    env = pruning_env(setting, METHODS[method], budget, "gram", seed)
    chosen = agent_of(METHODS[method], env, seed)
    spend = EACH if METHODS[method].evaluations is None else int(env.spent) + 2
    plan = search(env, chosen, evaluations=spend, batch=8, seed=seed).plan
    plan.save(place)
    return plan


def main() -> None:
    parser = options(__doc__, "front.csv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    parser.add_argument(
        "--methods", nargs="+", default=["conditional ppo", "evolution", "allocation"]
    )
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    checkpoint = Checkpoint.load(existing(given.checkpoint, "--checkpoint"))
    setting = setting_of(checkpoint, given.images)
    PLANS.mkdir(parents=True, exist_ok=True)
    for seed in range(given.seeds):
        for method in given.methods:
            for budget in (*BUDGETS, *(BETWEEN if method.startswith("conditional") else ())):
                key = (checkpoint.digest[:12], method, seed, budget)
                if not done(given.out, dict(zip(KEYS, key, strict=True))):
                    measured(setting, key, given.out)


def measured(setting: Setting, key: tuple, out: Path) -> None:
    """Write the row of one plan."""
    _, method, seed, budget = key
    plan = plan_of(setting, method, seed, budget)
    one_shot = measure(setting, plan, "gram", seed)["accuracy"]
    right = correct(refitted(setting, plan, REFIT_IMAGES, seed).eval(), setting.report)
    row = {
        **dict(zip(KEYS, key, strict=True)), "accuracy_one_shot": one_shot,
        "accuracy": float(right.mean()), "report_images": len(right), "reward_kind": KIND,
        "torch": torch.__version__, "machine": platform.machine(), "correct": packed(right),
    }  # fmt: skip
    append(out, row)
    print(*key[1:], one_shot, round(row["accuracy"], 4), flush=True)


if __name__ == "__main__":
    main()
