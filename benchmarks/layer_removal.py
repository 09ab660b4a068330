"""Which layers can be removed: size against accuracy of students, with and without an agent.

    python -m benchmarks.layer_removal --seeds 5
    python -m benchmarks.layer_removal --seeds 3 --evaluations 100 --out layer_removal_100.csv
    python -m benchmarks.layer_removal --noise --out benchmarks/results/layer_noise.csv
    python -m benchmarks.layer_removal --images FOLDER --checkpoint final.safetensors --out FILE

ResNet-20 on scikit-learn's digits (8x8), or a trained network and an image folder, of whose test
images 500 are the reward images.  Each plan is a student: pruned, trained briefly with the
dense network as teacher, and scored by C (2 - C) A / A_teacher on the reward images.  Each method
gets the same number of students; the seed decides network, agent and students.  For every size, the
student of a run that is best on the reward images is measured on the test images, as it was
scored: after its short training.  A row per run and size; a run that has its rows is not repeated.
`--plot` draws the table.
"""

from __future__ import annotations

import csv
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.harness import (
    RESULTS,
    append,
    components,
    done,
    existing,
    losses_for_savings,
    options,
    unseen,
)
from gnnrl.agents.registry import build_agent
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images
from gnnrl.data.images import Labelled
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.data.splits import Splits
from gnnrl.evaluation.base import Evaluation
from gnnrl.evaluation.distilled import Students
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.evaluation.training_settings import StudentSettings
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import removable_units
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.report.sweep import markdown
from gnnrl.runtime import device, generator, seed_everything
from gnnrl.search import build
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import Widths
from gnnrl.search.spaces.joint import JointSpace
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.shapes import Shape
from gnnrl.training.evaluate import accuracy
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

NETWORK, SHAPE = "resnet20", (1, 8, 8)
SIZES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)  # times smaller, at least
TEACHER = TrainingRecipe(epochs=15, batch_size=64, learning_rate=0.1, schedule="one_cycle")
STUDENT = TrainingRecipe(epochs=2, batch_size=128, learning_rate=0.05, schedule="one_cycle")
AGENTS: Mapping[str, Mapping[str, Any]] = {
    "ppo": {"initial_action": 0.3},
    "reinforce": {"initial_action": 0.3, "learning_rate": 0.02},
    "ppo, prior depth": {"initial_action": 0.5, "prior": "depth"},
}
"""Their settings, and `search.prior`."""
CALIBRATION, AROUND = 512, 1.0
"""Images of a calibration pass; spread of the logarithm of random factors on errors."""

REPEATED, TRAININGS = 20, 2
"""Plans that are trained again, and how often: how much do scores differ without another plan?"""


class Watched(Students):
    """Students whose test accuracy is recorded; no method sees it."""

    def __init__(self, *parts: Any, test_images: Labelled, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.test_images = test_images
        self.seen: list[tuple[Evaluation, float]] = []

    def scored(self, plan: PruningPlan, student: nn.Module, logits: Tensor) -> Evaluation:
        found = super().scored(plan, student, logits)
        self.seen.append((found, accuracy(student, self.test_images)))
        return found


@dataclass(frozen=True)
class Digits:
    """ResNet-20, trained on the digits anew for every seed."""

    splits: Splits
    shape: Shape = SHAPE

    def teacher(self, seed: int) -> nn.Module:
        """The dense network."""
        seed_everything(seed)
        network = build_network(NETWORK, self.splits.num_classes, self.shape)
        train(network, self.splits.train, TEACHER, seed=seed)
        return network.eval()


@dataclass(frozen=True)
class Trained:
    """A network that came trained, the same for every seed."""

    splits: Splits
    checkpoint: Checkpoint

    @property
    def shape(self) -> Shape:
        return self.checkpoint.input_shape

    def teacher(self, seed: int) -> nn.Module:
        """The dense network."""
        seed_everything(seed)
        return self.checkpoint.restore().to(device()).eval()


def given_by(images: Path | None, checkpoint: Path | None) -> Digits | Trained:
    """Return the network and the images of the options; without them the digits."""
    if (images is None) != (checkpoint is None):
        raise SystemExit("--images and --checkpoint go together: give both, or neither for digits")
    if images is None or checkpoint is None:
        recipe = DataRecipe("digits", reward_images=300, augmentation="none")
        return Digits(load_data(recipe, SHAPE))
    loaded = Checkpoint.load(existing(checkpoint, "--checkpoint"))
    return Trained(unseen(images, loaded.input_shape, augmentation="none"), loaded)


def by_agent(name: str, space: LayerSpace, students: Watched, seed: int, count: int) -> int:
    settings = dict(AGENTS[name])
    env = PruningEnv(LayerSpace(space.graph, prior=settings.pop("prior", None)), students)
    agent = build_agent(name.partition(",")[0], env, seed=seed, **settings)
    found = search(env, agent, evaluations=count, batch=8, seed=seed)
    return sum(not row["cached"] for row in found.evaluations)


def drawn(
    draw: Callable[[LayerSpace, torch.Generator], PruningPlan],
    purpose: str,
    space: LayerSpace,
    students: Watched,
    seed: int,
    count: int,
) -> int:
    """Students of different plans, as many as asked for or as many as there are."""
    plans: set[PruningPlan] = set()
    own = generator(seed, purpose)
    for _ in range(20 * count):
        plan = draw(space, own)
        if len(plans) < count and plan.removed_layers and plan not in plans:
            plans.add(plan)
            students([plan])
    return len(plans)


def at_random(space: LayerSpace, own: torch.Generator) -> PruningPlan:
    """Random removal: each part is removed with a probability that is random itself."""
    return space.sample(own)


def random_units(space: LayerSpace, own: torch.Generator) -> PruningPlan:
    """Random depth: each whole unit is removed with a probability that is random itself."""
    units = set(removable_units(space.graph))
    is_unit = np.array([name in units for name in space.names])
    return space.plan(space.random(own) & is_unit)


def evenly(space: LayerSpace, own: torch.Generator) -> PruningPlan:
    """Uniform depth: convolutions and blocks, every n-th of them; all shares and phases."""
    share, phase = torch.rand(2, generator=own, dtype=torch.float64).tolist()
    return space.uniform(share, phase)


def by_error(space: LayerSpace, students: Watched, seed: int, count: int) -> int:
    """Removal in the order of what parts lose, by one calibration pass, for what they save.

    All depths of this order first, then orders around it: errors times a random factor.
    """
    images = calibration_images(students._train_images, CALIBRATION, seed, device())
    surgeon = Surgeon(students.network, space.graph)
    found = build.reconstruct(surgeon, images, seed)
    joint = JointSpace(Widths(space.graph, found.importance, 1.0, curves=found.curves))
    lost = losses_for_savings(joint)
    rng, seen = np.random.default_rng(seed), set()
    for draw in range(20 * count):
        depth = 1 + draw % len(lost)
        factors = np.exp(rng.normal(0.0, AROUND, len(lost))) if draw >= len(lost) else 1.0
        order = np.argsort(factors * lost)
        plan = PruningPlan(removed_layers=frozenset(joint.parts[i] for i in order[:depth]))
        if len(seen) < count and plan not in seen:
            seen.add(plan)
            students([plan])
    return len(seen)


Method = Callable[[LayerSpace, Watched, int, int], int]
METHODS: Mapping[str, Method] = {
    **{name: lambda *parts, name=name: by_agent(name, *parts) for name in AGENTS},
    "random": partial(drawn, at_random, "random removal"),
    "random units": partial(drawn, random_units, "random units"),
    "uniform depth": partial(drawn, evenly, "uniform depth"),
    "measured errors": by_error,
}


def students_of(
    network: nn.Module, graph: ComputationalGraph, splits: Splits, seed: int
) -> Watched:
    """Return what trains and scores the students of a network."""
    return Watched(
        Surgeon(network, graph),
        splits.train,
        splits.reward,
        StudentSettings(recipe=STUDENT),
        RewardSettings(kind="n2n", batch_size=256),
        seed=seed,
        test_images=splits.test,
    )


def noise(dense: Digits | Trained, out: Path) -> None:
    """Train the students of some plans several times, with other orders of the images."""
    network, splits = dense.teacher(0), dense.splits
    graph = extract(network, torch.zeros(1, *dense.shape))
    space, own = LayerSpace(graph), generator(0, "plans that are repeated")
    plans = [random_units(space, own) for _ in range(REPEATED)]
    for training in range(TRAININGS):
        students = students_of(network, graph, splits, seed=training)
        for number, plan in enumerate(plans):
            if plan.removed_layers:
                students([plan])
                found, tested = students.seen[-1]
                row = {"plan": number, "training": training, "x_factor": found.details["x_factor"],
                       "reward": found.reward, "test_accuracy": tested}  # fmt: skip
                append(out, row)
                print(row, flush=True)


def run(
    network: nn.Module, dense: Digits | Trained, method: str, seed: int, count: int
) -> list[dict]:
    """One run; a row for each size."""
    splits, graph = dense.splits, extract(network, torch.zeros(1, *dense.shape))
    students = students_of(network, graph, splits, seed)
    start = time.perf_counter()
    evaluated = METHODS[method](LayerSpace(graph), students, seed, count)
    figures = {
        "method": method,
        "seed": seed,
        "students": evaluated,
        "failed": evaluated - len(students.seen),
        "best_reward": max(found.reward for found, _ in students.seen),
        "teacher_reward_accuracy": accuracy(network, splits.reward),
        "teacher_test_accuracy": accuracy(network, splits.test),
        "seconds": round(time.perf_counter() - start, 1),
        "torch": str(torch.__version__),
        "machine": platform.machine(),
    }
    return [{**figures, **at_size(students.seen, size)} for size in SIZES]


def at_size(seen: list[tuple[Evaluation, float]], size: float) -> dict[str, float | str]:
    """The best student on reward images of those so many times smaller, on the test images."""
    small = [(e, tested) for e, tested in seen if e.details["x_factor"] >= size]
    if not small:
        return {"smaller": size, "x_factor": "", "reward_accuracy": "", "test_accuracy": ""}
    best, tested = max(small, key=lambda pair: (pair[0].accuracy, pair[0].details["x_factor"]))
    return {
        "smaller": size,
        "x_factor": best.details["x_factor"],
        "reward_accuracy": best.accuracy,
        "test_accuracy": tested,
    }


def table(path: Path) -> dict[str, dict[float, list[float]]]:
    """Test accuracy, %, of each run that found a student so small, by method and size."""
    found: dict[str, dict[float, list[float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            runs = found.setdefault(row["method"], {}).setdefault(float(row["smaller"]), [])
            runs += [100 * float(row["test_accuracy"])] if row["test_accuracy"] else []
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation; not a number where there is nothing."""
    runs = torch.tensor(values, dtype=torch.float64)
    return float(runs.mean()), float(runs.std(correction=0))


def show(path: Path) -> None:
    """Print mean and standard deviation over the runs that found something, and how many did."""
    for method, sizes in table(path).items():
        cells = []
        for size, values in sizes.items():
            mean, deviation = spread(values)
            cells.append(f"{size:g}x {mean:.2f} +- {deviation:.2f} ({len(values)})")
        print(f"{method:14} {'  '.join(cells)}", flush=True)


def noise_table() -> str:
    """Return how far scores differ between plans and between trainings of one plan."""
    rows = pd.read_csv(RESULTS / "layer_noise.csv")
    lines = []
    for least in (1.0, 4.0):
        cells = ["all students" if least == 1.0 else f"at least {least:g} times smaller"]
        small = rows[rows["x_factor"] >= least]
        cells.append(str(small["plan"].nunique()))
        for name, unit, digits in (("reward", 1.0, 3), ("test_accuracy", 100.0, 1)):
            values = small.pivot(index="plan", columns="training", values=name).to_numpy()
            for part in components(unit * values):
                cells.append(f"{max(part, 0.0) ** 0.5:.{digits}f}")
        lines.append(cells)
    head = ["students", "plans", "reward: between plans", "between trainings of a plan",
            "test accuracy, points: between plans", "between trainings of a plan"]  # fmt: skip
    return markdown(head, lines)


def draw(path: Path, out: Path) -> None:
    """Draw the front of each method, over the runs that found something."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for method, sizes in table(path).items():
        points = [(size, *spread(values)) for size, values in sizes.items() if values]
        places, mean, deviation = torch.tensor(points, dtype=torch.float64).unbind(1)
        (line,) = axes.plot(places, mean, marker=".", label=method)
        band = {"color": line.get_color(), "alpha": 0.12, "linewidth": 0}
        axes.fill_between(places, mean - deviation, mean + deviation, **band)
    with path.open() as file:
        dense = {row["seed"]: float(row["teacher_test_accuracy"]) for row in csv.DictReader(file)}
    level = 100 * sum(dense.values()) / len(dense)
    axes.axhline(level, color="grey", linewidth=1, linestyle="--", label="teacher")
    axes.set_xlabel("times fewer parameters, at least")
    axes.set_ylabel("test accuracy after the short training, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = options(__doc__, "layer_removal.csv", data=False)
    parser.add_argument("--images", type=Path, help="an image folder, with --checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="of a network trained on its images")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--noise", action="store_true", help="Repeat the training of some plans.")
    parser.add_argument("--plot", action="store_true", help="Draw the table, run nothing.")
    given = parser.parse_args()
    if given.plot:
        show(given.out)
        draw(given.out, given.out.with_suffix(".png"))
        return
    dense = given_by(given.images, given.checkpoint)
    if given.noise:
        noise(dense, given.out)
        return
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        missing = [
            name for name in given.methods if not done(given.out, {"method": name, "seed": seed})
        ]
        network = dense.teacher(seed) if missing else None
        for method in missing:
            assert network is not None
            rows = run(network, dense, method, seed, given.evaluations)
            append(given.out, *rows)
            shown = ("method", "seed", "students", "failed", "best_reward", "seconds")
            print({key: rows[0][key] for key in shown}, flush=True)
    show(given.out)


if __name__ == "__main__":
    main()
