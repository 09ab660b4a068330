"""Pruning as a task for an agent, put together from its parts, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images as sample
from gnnrl.data.calibration import labelled_examples
from gnnrl.data.images import Labelled
from gnnrl.evaluation.base import EQUIVALENT
from gnnrl.evaluation.distilled import CONSTRAINED, Students
from gnnrl.evaluation.one_shot import Evaluator
from gnnrl.evaluation.racing import Racing
from gnnrl.evaluation.short_training import ShortTraining, Trained
from gnnrl.evaluation.student_settings import schooling
from gnnrl.files import user_path
from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable
from gnnrl.pruning.bottleneck import Bottleneck, BottleneckSettings
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.importance import importance
from gnnrl.pruning.saliency import CRITERIA, Scored, score
from gnnrl.runtime import device, generator
from gnnrl.search.env import Evaluate, PruningEnv
from gnnrl.search.looking import Looked, look, train_gates
from gnnrl.search.spaces.filters import filter_choice
from gnnrl.search.spaces.registry import build_space

RECONSTRUCTION, BOTTLENECK = "reconstruction", "bottleneck"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pruning_task(
    network: nn.Module,
    graph: ComputationalGraph,
    reward_images: Labelled,
    train_images: Labelled,
    *,
    seed: int,
    space: str = "channels",
    budget: Mapping[str, float | None],
    criterion: str,
    prior: str,
    calibration_images: int,
    latency_table: str | None,
    reward: str,
    statistics: str,
    statistics_images: int = 0,
    recalibration_images: int,
    compensation: str,
    precision: str,
    batch_size: int,
    max_steps: int,
    looked: Looked | None = None,
    gates: Mapping[str, float] | None = None,
    race: int = 0,
    initial: nn.Module | None = None,
    training: Mapping[str, float] | None = None,
    students: Mapping[str, Any] | None = None,
    dense: Checkpoint | None = None,
    **options: Any,
) -> PruningEnv:
    """Return the environment of a search for a plan, on the device found.

    space, criterion, reward: names, of ours or of the user's own.
    budget: the fields of `Budget`.  criterion: which channels of a group go first, or
    "reconstruction": those that the others can make up for, or "bottleneck": those whose trained
    gates close.  prior: "none", or actions are departures from an allocation: by what channels
    cost ("reconstruction"), or from what gates let pass ("bottleneck").  compensation: "none", or
    "gram": subnets make up for the inputs they lost.  These three look at as many training images
    as `calibration_images` says, without labels; the search is charged for it.
    gates: the fields of `BottleneckSettings` that are not to be as they are there.
    latency_table: a file, for a budget of latency.  looked: a look at the calibration images that
    was taken before; the search is charged for it all the same.
    statistics: of batch norm, as `Evaluator` has it, or "images": measured on as many training
    images as `recalibration_images` says.  statistics_images: as `Evaluator` has it.
    precision: a key of PRECISIONS.
    race: reward images on which the plans of a batch race (`Racing`); 0: no race.
    initial: the network as it was initialised, for the criterion magnitude_sign.
    training: the fields of `ShortTraining`: subnets are trained before they are scored.
    students: or trained with the network as teacher, and kept as checkpoints if they are good: the
    fields of `Schooling`, with recipe and distillation as sections.  dense: the network's.
    options: further settings of the space.
    """
    network = network.to(device())
    if space == "filters":  # refused before anything is computed
        least = {key: options[key] for key in ("min_channels", "min_fraction") if key in options}
        filter_choice(graph, None, Budget(**budget), **least)
    table = None if latency_table is None else LatencyTable.load(user_path(latency_table))
    if looked is None and (RECONSTRUCTION in (criterion, prior) or compensation == "gram"):
        calibration = sample(train_images, calibration_images, seed, device())
        looked = look(network, graph, calibration, generator(seed, "calibration"))
    trained = None
    if BOTTLENECK in (criterion, prior):
        calibration = sample(train_images, calibration_images, seed, device())
        settings = BottleneckSettings(**(gates or {}))
        trained = train_gates(network, graph, calibration, Budget(**budget), seed, settings)
    scored = _scores(criterion, network, graph, looked, trained, train_images, seed, initial)
    decided = build_space(
        space,
        network=network,
        graph=graph,
        importance=scored.importance,
        budget=Budget(**budget),
        table=table,
        curves=None if looked is None else looked.curves,
        allocated=prior == RECONSTRUCTION,
        start=trained.keep_ratios if prior == BOTTLENECK and trained is not None else None,
        project=reward != CONSTRAINED,
        **options,
    )
    if students is not None:
        evaluate: Evaluate = Students(
            network,
            graph,
            train_images,
            reward_images,
            schooling(**students),
            reward=reward,
            budget=Budget(**budget),
            dense=dense,
            batch_size=batch_size,
            seed=seed,
        )
    else:
        given = _statistics(statistics, train_images, recalibration_images, seed)
        solve = GramSolve(graph, looked.calibration) if compensation == "gram" else None
        measure = partial(
            Evaluator,
            network,
            graph,
            statistics=given,
            statistics_images=statistics_images,
            reward=reward,
            precision=PRECISIONS[precision],
            batch_size=batch_size,
            compensate=solve,
        )
        images, labels = mixed(reward_images, seed)
        evaluate = measure(images, labels)
        if training is not None:
            short = ShortTraining(**training)
            evaluate = Trained(evaluate, network, images, train_images, short, seed)
        elif 0 < race < len(images):
            evaluate = Racing(measure(images[:race], labels[:race]), evaluate)
    env = PruningEnv(decided, evaluate, max_steps)
    seen = 0 if looked is None else looked.calibration.forward_images
    seen += scored.forward_images + (0 if trained is None else trained.forward_images)
    env.spent = seen / EQUIVALENT
    return env


def mixed(images: Labelled, seed: int) -> tuple[Tensor, Tensor]:
    """Return all images and labels in an order drawn by the seed: folders come class by class.

    Parts of them, for batch statistics and races, then have all classes.
    """
    whole, labels = next(iter(images.batches(len(images), device())))
    order = torch.randperm(len(labels), generator=generator(seed, "order of reward images"))
    order = order.to(labels.device)
    return whole[order], labels[order]


def _scores(
    criterion: str,
    network: nn.Module,
    graph: ComputationalGraph,
    looked: Looked | None,
    trained: Bottleneck | None,
    train_images: Labelled,
    seed: int,
    initial: nn.Module | None,
) -> Scored:
    """Importance, and what it cost beyond what was charged already."""
    if criterion == RECONSTRUCTION and looked is not None:
        return Scored(looked.importance)
    if criterion == BOTTLENECK and trained is not None:
        return Scored(trained.importance)
    if criterion in CRITERIA:
        examples = partial(labelled_examples, train_images, seed, device())
        return score(criterion, network, graph, examples, initial)
    return Scored(importance(criterion, network, graph))


def _statistics(kind: str, images: Labelled, count: int, seed: int) -> str | Tensor:
    return sample(images, count, seed, device()) if kind == "images" else kind
