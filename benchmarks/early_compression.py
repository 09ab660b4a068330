"""Early compression: does searching for filters before training beat chance and the criteria?

    python -m benchmarks.early_compression
    python -m benchmarks.early_compression --images benchmarks/data/cifar10-fragment
    python -m benchmarks.early_compression --weights
    python -m benchmarks.early_compression --scored-after 1 --trainings 3 --evaluations 48 \
        --sparsities 0.7 0.8 --methods random annealing reinforce \
        --out benchmarks/results/early_compression_trained.csv
    python -m benchmarks.early_compression_table benchmarks/results/early_compression.csv

As in the thesis, a network is trained, its weights are kept at some epochs (snapshots; 0: as
initialised), a plan that keeps a fixed number of filters is found on a snapshot, the network as it
was *initialised* is cut to the plan, and the subnet is trained. The searchers score subnets without
any training, by accuracy on reward images, `--evaluations` of them each; criteria rank filters
once. With `--weights` single weights of a perceptron are masked instead of filters. Test images are
read once, after the last epoch. Each run appends a row; a second call with
the same `--out` continues.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import append, done, existing, options
from gnnrl.agents.registry import build_agent
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.data.splits import Splits
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.sparsity import zero_masks
from gnnrl.pruning.surgery import Surgeon, prune
from gnnrl.runtime import device, seed_everything
from gnnrl.search import build
from gnnrl.search.loop import search
from gnnrl.search.settings import SearchSettings
from gnnrl.training.evaluate import accuracy
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

SMALL = {"encoder": "plain", "hidden": 16, "layers": 1}
SEARCHERS: Mapping[str, dict[str, Any]] = {
    "random": {},
    "annealing": {"cooling": 0.98},
    "reinforce": {
        **SMALL,
        "learning_rate": 0.02,
        "table_learning_rate": 0.2,
        "credit_decay": 0.9,
    },
}
TRAINED = ("magnitude", "magnitude_local", "magnitude_normalised", "magnitude_sign")
"""Criteria on the weights after training."""
CRITERIA = (*TRAINED, "snip", "grasp", "synflow")
METHODS = (*SEARCHERS, *(f"{c}{end}" for c in CRITERIA for end in ("", "_shuffled")))
ON_WEIGHTS = ("random", "annealing", *TRAINED, "snip")
UNTRAINED = {"kind": "accuracy", "statistics": "batch", "batch_size": 512}
KEYS = ("data", "network", "sparsity", "method", "snapshot", "seed")


@dataclass(frozen=True)
class Setting:
    """Which images, which network, how it is trained.

    scored_after: epochs that searchers train subnets for before they score them; 0: none.
    trainings: of the subnet that was found, each with another order of the images; their mean
    counts.
    """

    data: DataRecipe
    network: str
    shape: tuple[int, int, int]
    recipe: TrainingRecipe
    space: str = "filters"
    scored_after: float = 0.0
    trainings: int = 1

    @property
    def reward(self) -> dict[str, Any]:
        """The reward of the searchers."""
        trained = {"training": {"epochs": self.scored_after}} if self.scored_after else {}
        return {**UNTRAINED, **trained}


@dataclass(frozen=True, eq=False)
class Dense:
    """A network, its weights by snapshot, and what it became."""

    network: nn.Module
    graph: ComputationalGraph
    weights: Mapping[int, Mapping[str, Tensor]]
    accuracy: float

    def at(self, snapshot: int) -> nn.Module:
        """The network with the weights of a snapshot."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.weights[snapshot])
        return network.eval()


def digits(epochs: int) -> Setting:
    """Minutes on a processor: an eighth of BasicCNN's filters, 20x20 pixels."""
    recipe = TrainingRecipe(epochs, 64, 0.05, schedule="one_cycle", augment=False)
    return Setting(DataRecipe("digits", reward_images=300), "basic_cnn_eighth", (1, 20, 20), recipe)


def perceptron(epochs: int) -> Setting:
    """Minutes on a processor: single weights of the thesis's perceptron, digits of 28x28 pixels."""
    recipe = TrainingRecipe(epochs, 64, 0.05, weight_decay=0.0, augment=False)
    data = DataRecipe("digits", reward_images=300)
    return Setting(data, "mlp_300_100", (1, 28, 28), recipe, "single_weights")


def cifar10(images: Path, epochs: int) -> Setting:
    """The thesis's recipe, shortened in proportion, on a quarter of its filters and real images."""
    steps = tuple(round(epochs * part) for part in (1 / 3, 2 / 3))
    recipe = TrainingRecipe(
        epochs, 256, 0.1, nesterov=False, weight_decay=1e-4, schedule="step", milestones=steps,
        augment=False, channels_last=True,
    )  # fmt: skip
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    data = DataRecipe("image_folder", str(images), reward_images=1024, mean=mean, std=std)
    return Setting(data, "basic_cnn_quarter", (3, 32, 32), recipe)


def pretrained(setting: Setting, splits: Splits, snapshots: tuple[int, ...], seed: int) -> Dense:
    seed_everything(seed)
    network = build_network(setting.network, splits.num_classes, setting.shape)
    graph = extract(network.eval(), torch.zeros(1, *setting.shape))
    last = setting.recipe.epochs
    kept = tuple({0, last, *snapshots})
    training = train(network, splits.train, setting.recipe, seed=seed, snapshots=kept)
    return Dense(network, graph, training.snapshots, accuracy(network, splits.test))


def found(
    setting: Setting, dense: Dense, splits: Splits, method: str, sparsity: float, snapshot: int,
    seed: int, spend: int,
) -> tuple[PruningPlan, dict[str, Any]]:  # fmt: skip
    """The plan of a method, and what it took."""
    start = time.process_time()
    ranking = {} if method in SEARCHERS else ranked(method)
    if method in SEARCHERS and setting.space == "single_weights":
        ranking = {"importance": "magnitude"}  # what the agents see; these two do not look
    agent_name = method if method in SEARCHERS else "ranking"
    settings = SearchSettings(
        seed=seed,
        space=setting.space,
        agent=agent_name,
        budget={"sparsity": sparsity},
        reward=setting.reward if method in SEARCHERS else UNTRAINED,
        **ranking,
    )
    surgeon = Surgeon(dense.at(snapshot).to(device()).eval(), dense.graph)
    inputs = build.Inputs(surgeon, splits.reward, splits.train, initial=dense.at(0))
    env = build.make_env(settings, inputs)
    parameters = SEARCHERS.get(method) or ranking.get("ranking", {})
    agent = build_agent(agent_name, env, seed=seed, **parameters)
    evaluations = (spend if method in SEARCHERS else 1) * env.evaluate.cost
    spent = max(2, math.ceil(evaluations))
    result = search(env, agent, evaluations=spent, batch=8, seed=seed)
    plans = sum(not row["cached"] for row in result.evaluations)
    seconds = round(time.process_time() - start, 2)
    return result.plan, {"reward": result.reward, "plans": plans, "search_seconds": seconds}


def run(
    setting: Setting, splits: Splits, dense: Dense, method: str, sparsity: float, snapshot: int,
    seed: int, spend: int,
) -> dict[str, Any]:  # fmt: skip
    """A row: search, cut the initial network, train, test."""
    plan, figures = found(setting, dense, splits, method, sparsity, snapshot, seed, spend)
    reached = []
    for number in range(setting.trainings):
        subnet = prune(dense.at(0), dense.graph, plan)
        masks = zero_masks(subnet, setting.shape, [plan.to_json()])
        train(subnet, splits.train, setting.recipe, seed=seed + 1000 * number, zeros=masks)
        reached.append(accuracy(subnet, splits.test))
    widths = [len(plan.kept[group.layers[0]]) for group in dense.graph.groups if plan.kept]
    widths = widths or [int((~mask).sum()) for mask in masks.values()]
    return {
        "data": setting.data.name,
        "network": setting.network,
        "sparsity": sparsity,
        "method": method,
        "snapshot": snapshot,
        "seed": seed,
        "epochs": setting.recipe.epochs,
        "accuracy": sum(reached) / len(reached),
        "dense_accuracy": dense.accuracy,
        "flops_kept": round(cost(dense.graph, plan).flops / cost(dense.graph).flops, 4),
        "narrowest": min(widths),
        "widths": " ".join(map(str, widths)),
        **figures,
        **({"scored_after": setting.scored_after} if setting.scored_after else {}),
    }


def ranked(method: str) -> dict[str, Any]:
    """The settings of a criterion."""
    criterion = method.removesuffix("_shuffled")
    return {"importance": criterion, "ranking": {"shuffled": criterion != method}}


def snapshot_of(method: str, searched: int, last: int) -> int:
    """Return the snapshot that a method uses; magnitudes need the weights after training."""
    if method in SEARCHERS:
        return searched
    return last if method.removesuffix("_shuffled") in TRAINED else 0


def main() -> None:
    parser = options(__doc__, "early_compression.csv", data=False)
    parser.add_argument("--weights", action="store_true", help="Masks of single weights.")
    parser.add_argument("--images", type=Path, help="CIFAR-10 as an image folder; else digits")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8])
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--snapshots", type=int, nargs="+", default=[0], help="that are searched")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--evaluations", type=int, default=160, help="of each searcher")
    parser.add_argument("--trainings", type=int, default=1, help="of the subnet found; their mean")
    parser.add_argument(
        "--scored-after", type=float, default=0.0, help="epochs of training before a plan is scored"
    )
    given = parser.parse_args()
    setting = perceptron(given.epochs) if given.weights else digits(given.epochs)
    methods = given.methods or (ON_WEIGHTS if given.weights else METHODS)
    if given.images:
        setting = cifar10(existing(given.images, "--images"), given.epochs)
    setting = replace(setting, scored_after=given.scored_after, trainings=given.trainings)
    splits = load_data(setting.data, setting.shape)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        dense = None
        for sparsity, method in itertools.product(given.sparsities, methods):
            last = setting.recipe.epochs
            for snapshot in sorted({snapshot_of(method, s, last) for s in given.snapshots}):
                key = (setting.data.name, setting.network, sparsity, method, snapshot, seed)
                if done(given.out, dict(zip(KEYS, key, strict=True))):
                    continue
                dense = dense or pretrained(setting, splits, tuple(given.snapshots), seed)
                row = run(
                    setting, splits, dense, method, sparsity, snapshot, seed, given.evaluations
                )
                append(given.out, row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
