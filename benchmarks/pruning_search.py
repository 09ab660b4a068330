"""One-shot pruning of the published CIFAR-10 ResNets: who finds the better plan at equal cost.

    python -m benchmarks.pruning_search --network resnet56 --budgets 0.5 0.33 --seeds 5 \
        --images ../shared/data/cifar10-fragment --weights ../shared/data/weights

Half of the test images is for the reward, the other half for the report; calibration images are
training images without labels.  Every searcher gets the same evaluation equivalents, the look at
the calibration images counted in.  A row per run; `--merge` turns rows into the table.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl.calibration import calibration_images
from gnnrl.data.images import Images
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.networks.weights import load_weights
from gnnrl.pruning.compensation import compensate
from gnnrl.pruning.matching import recalibrate_matched
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator, seed_everything
from gnnrl.search import task
from gnnrl.search.agents.build import build_agent
from gnnrl.search.loop import search
from gnnrl.training.evaluate import accuracy

WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECALIBRATION, CALIBRATION, REFIT = 512, 1024, 1024


@dataclass(frozen=True)
class Method:
    """A line of the table.  criterion, prior: as in params.yaml.  agent: its name; settings."""

    agent: str
    criterion: str = "reconstruction"
    prior: str = "none"
    settings: tuple[tuple[str, object], ...] = ()
    evaluations: int | None = None  # None: as many as the others


def _ppo(**settings: object) -> tuple[tuple[str, object], ...]:
    return tuple({"initial_action": 0.5, "initial_std": 0.4, **settings}.items())


METHODS = {
    "uniform l1": Method("uniform", "l1", evaluations=1),
    "uniform": Method("uniform", evaluations=1),
    "random l1": Method("random", "l1"),
    "random": Method("random"),
    "allocation": Method("uniform", prior="reconstruction", evaluations=1),
    "random around allocation": Method("random", prior="reconstruction"),
    "sensitivity": Method("sensitivity"),
    "sensitivity l1": Method("sensitivity", "l1"),
    "bottleneck": Method("uniform", "bottleneck", prior="bottleneck", evaluations=1),
    "bottleneck and reconstruction": Method("uniform", prior="bottleneck", evaluations=1),
    "ppo around bottleneck": Method("ppo", prior="bottleneck", settings=_ppo()),
    "evolution": Method("evolution", prior="reconstruction"),
    "annealing": Method("annealing", prior="reconstruction"),
    "ppo": Method("ppo", prior="reconstruction", settings=_ppo()),
    "ppo without prior": Method("ppo", settings=_ppo(initial_std=0.7)),
    "ppo, features blanked": Method("ppo", prior="reconstruction", settings=_ppo(blind=True)),
    "ppo, no message passing": Method(
        "ppo", prior="reconstruction", settings=_ppo(message_passing=False)
    ),
}


@dataclass(frozen=True, eq=False)
class Setting:
    """A network with its images."""

    network: nn.Module
    graph: ComputationalGraph
    train: Images
    reward: Images
    report: Images


def load(name: str, images: Path, weights: Path) -> Setting:
    recipe = DataRecipe(
        "image_folder", str(images), reward_images=508, reward_from="test", mean=MEAN, std=STD
    )
    splits = load_data(recipe, (3, 32, 32))
    network = build_network(name)
    load_weights(network, str(weights / WEIGHTS[name]))
    graph = extract(network.eval(), torch.zeros(1, 3, 32, 32))
    return Setting(network, graph, splits.train, splits.reward, splits.test)


@cache
def looked_at(setting: Setting, seed: int) -> task.Looked:
    """The look at the calibration images that all methods of a seed share."""
    images = calibration_images(setting.train, CALIBRATION, seed, torch.device("cpu"))
    return task.look(setting.network, setting.graph, images, generator(seed, "calibration"))


def run(
    setting: Setting, method: Method, budget: float, compensation: str, seed: int, spend: int
) -> tuple[dict[str, object], list[dict[str, object]], PruningPlan]:
    """One search; its figures and its evaluations."""
    seed_everything(seed)
    needed = "reconstruction" in (method.criterion, method.prior) or compensation == "gram"
    looked = looked_at(setting, seed) if needed else None
    start = time.perf_counter()
    env = task.pruning_task(
        setting.network,
        setting.graph,
        setting.reward,
        setting.train,
        seed=seed,
        budget={"flops": budget, "parameters": None, "latency": None},
        criterion=method.criterion,
        prior=method.prior,
        calibration_images=CALIBRATION,
        latency_table=None,
        reward="divergence",
        statistics="matched",
        recalibration_images=RECALIBRATION,
        compensation=compensation,
        precision="bfloat16",
        batch_size=512,
        max_steps=1,
        looked=looked,
    )
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
    return figures, found.evaluations, found.plan


def measure(setting: Setting, plan: PruningPlan, compensation: str, seed: int) -> dict[str, float]:
    """Accuracy of a plan on the report half, cut once more for it."""
    surgeon = Surgeon(setting.network, setting.graph)
    images = calibration_images(setting.train, RECALIBRATION, seed, torch.device("cpu"))
    subnet = surgeon.cut(plan).eval()
    recalibrate_matched(setting.network, setting.graph, subnet, plan, images)
    found = {"recalibrated": accuracy(subnet, setting.report)}
    if compensation == "gram":
        own = generator(seed, "compensation")
        more = calibration_images(setting.train, REFIT, seed, torch.device("cpu"))
        subnet = compensate(surgeon, plan, flipped(more, own), own).eval()
        found["compensated"] = accuracy(subnet, setting.report)
    return found


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored: more to see in the same number."""
    mirror = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=WEIGHTS, default="resnet56")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.33])
    parser.add_argument("--compensation", nargs="+", default=["none", "gram"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/cifar10-fragment"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/data/weights"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pruning_search.csv"))
    options = parser.parse_args()
    for path in (options.images, options.weights):
        if not path.exists():
            raise SystemExit(f"{path} is not there; name it by --images or --weights")
    setting = load(options.network, options.images, options.weights)
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    for budget in options.budgets:
        for compensation in options.compensation:
            for name in options.methods:
                for seed in range(options.first_seed, options.first_seed + options.seeds):
                    figures, rows, plan = run(
                        setting, METHODS[name], budget, compensation, seed, options.evaluations
                    )
                    figures |= measure(setting, plan, compensation, seed)
                    row = {
                        "network": options.network,
                        "budget": budget,
                        "compensation": compensation,
                        "method": name,
                        "seed": seed,
                        **figures,
                        **versions,
                    }
                    append(options.out, row)
                    curve = options.out.with_name(f"{options.out.stem}_curves.csv")
                    key = {k: row[k] for k in list(row)[:5]}
                    for spent, best in anytime(rows, figures["spent"]):
                        append(curve, {**key, "spent": spent, "best": best})
                    print({k: v for k, v in row.items() if k not in versions}, flush=True)


def anytime(rows: list[dict[str, object]], spent: float) -> list[tuple[float, float]]:
    """Best reward so far against evaluation equivalents spent."""
    costs = np.array([float(row["cost"]) for row in rows])
    done = float(spent) - costs.sum() + np.cumsum(costs)
    return [(round(float(s), 3), float(row["best"])) for s, row in zip(done, rows, strict=True)]


def append(path: Path, row: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    fields = [*row, *[c for c in ("compensated",) if c not in row]]
    if not new:
        with path.open() as file:
            fields = next(csv.reader(file))
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
