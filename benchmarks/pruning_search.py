"""One-shot pruning of the published CIFAR-10 ResNets: who finds the better plan at equal cost.

    python -m benchmarks.pruning_search --network resnet56 --budgets 0.5 0.33 --seeds 5 \
        --images ../shared/data/cifar10-fragment --weights ../shared/data/weights

Half of the test images is for the reward, the other half for the report; calibration images are
training images without labels.  Every searcher gets the same evaluation equivalents, the look at
the calibration images counted in.  A row per run, runs that have one are not repeated; the plans
are kept for `benchmarks.pruning_final`, and `benchmarks.pruning_table` makes the table.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.pruning_methods import METHODS, Method
from gnnrl.agents.registry import build_agent
from gnnrl.data.calibration import calibration_images
from gnnrl.data.images import Images
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.networks.build import build_network
from gnnrl.networks.weights import load_weights
from gnnrl.pruning.batch_norm import recalibrate_matched
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device, seed_everything
from gnnrl.search import build
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import SearchResult, search
from gnnrl.search.settings import SearchSettings

WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECALIBRATION, CALIBRATION = 512, 1024
KEYS = ("network", "budget", "compensation", "kind", "method", "seed")
KIND = "jensen_shannon"
"""Of reward. An earlier series of runs had `divergence`; each row says which one it was."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A network with its images. one_look: the seeds are those of searches, calibration is one."""

    network: nn.Module
    graph: ComputationalGraph
    train: Images
    reward: Images
    report: Images
    one_look: bool = False


def load(name: str, images: Path, weights: Path, one_look: bool = False) -> Setting:
    recipe = DataRecipe(
        "image_folder", str(images), reward_images=508, reward_from="test", mean=MEAN, std=STD
    )
    splits = load_data(recipe, (3, 32, 32))
    network = build_network(name)
    load_weights(network, str(weights / WEIGHTS[name]))
    graph = extract(network.eval(), torch.zeros(1, 3, 32, 32))
    return Setting(network, graph, splits.train, splits.reward, splits.test, one_look)


@cache
def in_blocks(setting: Setting) -> Setting:
    """The same network, only the channels between two layers of a block free."""
    graph = setting.graph
    whole = [name for name in graph.layers if not name.startswith("layer") or "conv1" not in name]
    graph = extract(setting.network, torch.zeros(1, 3, 32, 32), protect=whole)
    return replace(setting, graph=graph)


def calibration_of(setting: Setting, seed: int) -> build.Reconstruction:
    """What a run of this seed knows of the calibration images."""
    return calibrated(setting, 0 if setting.one_look else seed)


@cache
def calibrated(setting: Setting, seed: int) -> build.Reconstruction:
    """The calibration pass that all methods of a seed share."""
    images = calibration_images(setting.train, CALIBRATION, seed, torch.device("cpu"))
    return build.reconstruct(Surgeon(setting.network, setting.graph), images, seed)


def pruning_env(
    setting: Setting, method: Method, budget: float, compensation: str, seed: int
) -> PruningEnv:
    """The task of a method."""
    setting = in_blocks(setting) if method.blocks else setting
    needed = "reconstruction" in (method.importance, method.prior) or compensation == "gram"
    settings = SearchSettings(
        seed=seed,
        budget={"flops": budget},
        importance=method.importance,
        prior=method.prior,
        calibration_images=CALIBRATION,
        reward={
            "kind": KIND,
            "statistics": "matched",
            "compensation": compensation,
            "precision": "bfloat16",
            "batch_size": 512,
        },
    )
    surgeon = Surgeon(setting.network.to(device()).eval(), setting.graph)
    inputs = build.Inputs(surgeon, setting.reward, setting.train)
    given = build.Calibrated(calibration_of(setting, seed)) if needed else None
    return build.make_env(settings, inputs, given)


def run(
    setting: Setting, method: Method, budget: float, compensation: str, seed: int, spend: int
) -> tuple[dict[str, object], SearchResult]:
    """One search and its figures."""
    seed_everything(seed)
    start = time.perf_counter()
    env = pruning_env(setting, method, budget, compensation, seed)
    agent = build_agent(method.agent, env, seed=seed, **dict(method.settings))
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
    """Accuracy of a plan on the report half, cut once more for it, norms measured anew."""
    images = calibration_images(setting.train, RECALIBRATION, seed, torch.device("cpu"))
    subnet = Surgeon(setting.network, setting.graph).cut(plan).eval()
    if compensation == "gram":
        found = calibration_of(setting, seed)
        solve = GramSolve(setting.graph, found.calibration)
        solve(subnet, kept_units(setting.graph, plan.kept))
    recalibrate_matched(setting.network, setting.graph, subnet, plan, images)
    right = correct(subnet, setting.report)
    return {"accuracy": float(right.mean()), "correct": packed(right)}


def correct(network: nn.Module, images: Images) -> np.ndarray:
    """Which images a network tells right, bool `[N]`."""
    with torch.inference_mode():
        found = [network(x).argmax(1) == y for x, y in images.batches(256, torch.device("cpu"))]
    return torch.cat(found).numpy()


def packed(right: np.ndarray) -> str:
    """Booleans as hexadecimal digits, for a bootstrap over images."""
    return np.packbits(right).tobytes().hex()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=WEIGHTS, default="resnet56")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.33])
    parser.add_argument("--compensation", nargs="+", default=["none", "gram"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument("--one-look", action="store_true", help="calibration images of seed 0")
    parser.add_argument("--images", type=Path, default=Path("../shared/data/cifar10-fragment"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/data/weights"))
    parser.add_argument("--plans", type=Path, default=Path(".gnnrl/pruning_search"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pruning_search.csv"))
    options = parser.parse_args()
    for path in (options.images, options.weights):
        if not path.exists():
            raise SystemExit(f"{path} is not there; name it by --images or --weights")
    setting = load(options.network, options.images, options.weights, options.one_look)
    for budget in options.budgets:
        for compensation in options.compensation:
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                for name in options.methods:
                    key = (options.network, budget, compensation, KIND, name, seed)
                    if not done(options.out, key):
                        one(setting, key, options)


def one(setting: Setting, key: tuple, options: argparse.Namespace) -> None:
    """One run: its row, its curve, its plan."""
    _, budget, compensation, _, name, seed = key
    figures, found = run(setting, METHODS[name], budget, compensation, seed, options.evaluations)
    named = dict(zip(KEYS, key, strict=True))
    place = plan_place(options.plans, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    found.plan.save(place)
    torch.save(found.agent.state_dict(), place.with_suffix(".pt"))
    curve = options.out.with_name(f"{options.out.stem}_curves.csv")
    for spent, best in anytime(found.evaluations, figures["spent"]):
        append(curve, {**named, "spent": spent, "best": best})
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    measured = measure(setting, found.plan, compensation, seed)
    append(options.out, {**named, **figures, **measured, **versions})
    print(*key, *figures.values(), round(measured["accuracy"], 4), flush=True)


def plan_place(folder: Path, key: tuple) -> Path:
    return folder / ("-".join(str(part).replace(" ", "_") for part in key) + ".json")


def done(path: Path, key: tuple, extra: tuple[tuple[str, object], ...] = ()) -> bool:
    """Whether a run has its row. extra: further columns and their values."""
    if not path.exists():
        return False
    with path.open(newline="") as file:
        names = [*KEYS, *(name for name, _ in extra)]
        rows = [tuple(row[name] for name in names) for row in csv.DictReader(file)]
    return tuple(str(part) for part in (*key, *(value for _, value in extra))) in rows


def anytime(rows: list[dict[str, object]], spent: float) -> list[tuple[float, float]]:
    """Best reward so far against evaluation equivalents spent."""
    costs = np.array([float(row["cost"]) for row in rows])
    done = float(spent) - costs.sum() + np.cumsum(costs)
    return [(round(float(s), 3), float(row["best"])) for s, row in zip(done, rows, strict=True)]


def append(path: Path, row: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
