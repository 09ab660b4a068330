"""One-shot pruning of the published CIFAR-10 ResNets: which method finds the best plan.

    python -m benchmarks.data
    python -m benchmarks.pruning_search --network resnet56 --budgets 0.5 0.33 --seeds 5

Half of the test images is for the reward, the other half for the report; calibration images are
training images without labels.  Every method may spend the same number of evaluations, including
the calibration pass.  Each run is one row; a run that has a row is not repeated.  The plans are
kept for `benchmarks.pruning_final`, and `benchmarks.pruning_table` makes the table.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import (
    KEYS,
    PUBLISHED,
    Setting,
    append,
    correct,
    done,
    load,
    options,
    packed,
)
from benchmarks.pruning_methods import METHODS, Method
from gnnrl.agents.pretrained import SHIPPED, encoder
from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.data.calibration import calibration_images
from gnnrl.graph.extract import extract
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.matching import recalibrate_matched
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.rl.agent import Agent
from gnnrl.runtime import device, seed_everything
from gnnrl.search import build
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import SearchResult, search
from gnnrl.search.observations.channels import FEATURES
from gnnrl.search.settings import SearchSettings

RECALIBRATION, CALIBRATION = 512, 1024
PLANS = Path(".gnnrl/pruning_search")
KIND = "jensen_shannon"
"""The reward. Earlier runs used `divergence`; the column `kind` of a row names its reward."""


@cache
def in_blocks(setting: Setting) -> Setting:
    """Return the same network, in which only the channels inside residual blocks can be pruned."""
    graph = setting.graph
    whole = [name for name in graph.layers if not name.startswith("layer") or "conv1" not in name]
    graph = extract(setting.network, torch.zeros(1, 3, 32, 32, device=device()), protect=whole)
    return replace(setting, graph=graph)


def calibration_of(setting: Setting, seed: int) -> build.Reconstruction:
    """What a run of this seed knows of the calibration images."""
    return calibrated(setting, 0 if setting.shared_calibration else seed)


@cache
def calibrated(setting: Setting, seed: int) -> build.Reconstruction:
    """The calibration pass that all methods of a seed share."""
    images = calibration_images(setting.train, CALIBRATION, seed, device())
    return build.reconstruct(Surgeon(setting.network, setting.graph), images, seed)


def pruning_env(
    setting: Setting,
    method: Method,
    budget: float,
    compensation: str,
    seed: int,
    budgets: tuple[float, ...] = (),
) -> PruningEnv:
    """Return the environment of a method; budgets: further ones."""
    setting = in_blocks(setting) if method.blocks else setting
    needed = "reconstruction" in (method.importance, method.prior) or compensation == "gram"
    settings = SearchSettings(
        seed=seed,
        space=method.space,
        budget={"flops": budget},
        budgets=budgets,
        importance=method.importance,
        prior=method.prior,
        calibration_images=CALIBRATION,
        reward={
            "kind": KIND,
            "statistics": "matched",
            "compensation": compensation,
            "precision": "auto",
            "race": method.race,
            "batch_size": 512,
        },
    )
    surgeon = Surgeon(setting.network.eval(), setting.graph)
    inputs = build.Inputs(surgeon, setting.reward, setting.train)
    given = build.Calibrated(calibration_of(setting, seed)) if needed else None
    return build.make_env(settings, inputs, given)


def agent_of(method: Method, env: PruningEnv, seed: int) -> Agent:
    """Return the agent of a method as it is before the search."""
    settings = dict(method.settings)
    if not method.pretrained:
        return build_agent(method.agent, env, seed=seed, **settings)
    settings |= encoder(method.agent, "channels", FEATURES, env.action_kind)
    agent = build_agent(method.agent, env, seed=seed, **settings)
    adopt(agent, SHIPPED)
    return agent


def run(
    setting: Setting, method: Method, budget: float, compensation: str, seed: int, spend: int
) -> tuple[dict[str, object], SearchResult]:
    """Search once; return the figures of the run and its result."""
    seed_everything(seed)
    start = time.perf_counter()
    env = pruning_env(setting, method, budget, compensation, seed)
    agent = agent_of(method, env, seed)
    evaluations = spend if method.evaluations is None else int(np.ceil(env.spent)) + 1
    found = search(env, agent, evaluations=evaluations, batch=8, seed=seed)
    seconds = time.perf_counter() - start
    figures = {
        "flops_kept": env.space.used(found.plan),
        "spent": found.history[-1]["spent"] if found.history else env.spent + 1,
        "plans": sum(not row["cached"] for row in found.evaluations),
        "reward": found.reward,
        "search_seconds": round(seconds, 1),
    }
    return figures, found


def measure(setting: Setting, plan: PruningPlan, compensation: str, seed: int) -> dict[str, object]:
    """Return the accuracy on the report images of the pruned network, batch norm re-estimated."""
    images = calibration_images(setting.train, RECALIBRATION, seed, device())
    subnet = Surgeon(setting.network, setting.graph).cut(plan).eval()
    if compensation == "gram":
        found = calibration_of(setting, seed)
        solve = GramSolve(setting.graph, found.calibration)
        solve(subnet, kept_units(setting.graph, plan.kept))
    recalibrate_matched(setting.network, setting.graph, subnet, plan, images)
    right = correct(subnet, setting.report)
    return {"accuracy": float(right.mean()), "correct": packed(right)}


def main() -> None:
    parser = options(__doc__, "pruning_search.csv")
    parser.add_argument("--network", choices=PUBLISHED, default="resnet56")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.33])
    parser.add_argument("--compensation", nargs="+", default=["none", "gram"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument(
        "--shared-calibration", action="store_true", help="calibration images of seed 0 for all"
    )
    parser.add_argument("--plans", type=Path, default=PLANS)
    given = parser.parse_args()
    setting = load(given.network, given.images, given.weights, given.shared_calibration)
    for budget in given.budgets:
        for compensation in given.compensation:
            for seed in range(given.first_seed, given.first_seed + given.seeds):
                for name in given.methods:
                    key = (given.network, budget, compensation, KIND, name, seed)
                    if not done(given.out, dict(zip(KEYS, key, strict=True))):
                        one(setting, key, given)


def one(setting: Setting, key: tuple, given: argparse.Namespace) -> None:
    """Write the row, the curve and the plan of one run."""
    _, budget, compensation, _, name, seed = key
    figures, found = run(setting, METHODS[name], budget, compensation, seed, given.evaluations)
    named = dict(zip(KEYS, key, strict=True))
    place = plan_place(given.plans, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    found.plan.save(place)
    torch.save(found.agent.state_dict(), place.with_suffix(".pt"))
    curve = given.out.with_name(f"{given.out.stem}_curves.csv")
    for spent, best in anytime(found.evaluations, figures["spent"]):
        append(curve, {**named, "spent": spent, "best": best})
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    measured = measure(setting, found.plan, compensation, seed)
    append(given.out, {**named, **figures, **measured, **versions})
    print(*key, *figures.values(), round(measured["accuracy"], 4), flush=True)


def plan_place(folder: Path, key: tuple) -> Path:
    """Return the file of the plan that a run found."""
    return folder / ("-".join(str(part).replace(" ", "_") for part in key) + ".json")


def anytime(rows: list[dict[str, object]], spent: float) -> list[tuple[float, float]]:
    """Return the best reward so far after each evaluation, with the evaluations spent."""
    costs = np.array([float(row["cost"]) for row in rows])
    total = float(spent) - costs.sum() + np.cumsum(costs)
    return [(round(float(s), 3), float(row["best"])) for s, row in zip(total, rows, strict=True)]


if __name__ == "__main__":
    main()
