"""A search for a plan, put together step by step: read, calibrate, score, space, evaluator, env."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gnnrl.agents.pretrained import PRETRAINED, SHIPPED, encoder
from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images as sample
from gnnrl.data.calibration import labelled_examples, labelled_images
from gnnrl.data.images import Labelled
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluator, Unevaluated
from gnnrl.evaluation.distilled import Students
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.racing import Racing
from gnnrl.evaluation.rewards import CONSTRAINED, SMALLEST
from gnnrl.evaluation.short_training import Trained
from gnnrl.evaluation.student_store import StudentStore
from gnnrl.files import user_path
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable
from gnnrl.pruning.bottleneck import Bottleneck, bottleneck
from gnnrl.pruning.compensation.gram import SOLVES
from gnnrl.pruning.compensation.moments import price
from gnnrl.pruning.criteria import SALIENCIES
from gnnrl.pruning.importance import Importance, importance
from gnnrl.pruning.saliency import Scored, score
from gnnrl.pruning.surgery import Surgeon
from gnnrl.pruning.weight_saliency import score_weights
from gnnrl.rl.agent import Agent
from gnnrl.runtime import device, generator, seed_everything
from gnnrl.scratch import scratch_root
from gnnrl.search.budgets import BudgetsEnv
from gnnrl.search.calibration import Reconstruction, reconstruct
from gnnrl.search.controls import with_controls
from gnnrl.search.env import PruningEnv, Space
from gnnrl.search.journal import AGENTS
from gnnrl.search.loop import SearchResult, decided, search
from gnnrl.search.observations.channels import FEATURES
from gnnrl.search.parallel.ray import ray_workers
from gnnrl.search.parallel.workers import Shared
from gnnrl.search.rescoring import Rescoring
from gnnrl.search.settings import BOTTLENECK, DEPTH, RECONSTRUCTION, SearchSettings, SpaceSettings
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.filters import filter_choice
from gnnrl.search.spaces.registry import build_space
from gnnrl.search.watched import Watched
from gnnrl.tasks.base import Targets, Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.watch import Watch


@dataclass(frozen=True, eq=False)
class SearchTask:
    """All that a search is made from; workers elsewhere make it again from the same.

    initial: the network before pretraining, where the importance asks for it.  meaning: what the
    network's outputs mean.  folder: where the best students are kept, if any are trained.
    """

    settings: SearchSettings
    checkpoint: Checkpoint
    graph: ComputationalGraph
    reward_images: Labelled
    train_images: Labelled
    initial: Checkpoint | None = None
    meaning: Task = CLASSIFICATION
    folder: Path | None = None

    @property
    def store(self) -> StudentStore | None:
        """Where the best students are kept; None where there are none to keep."""
        students = self.settings.students
        if self.folder is None or students is None or not students.keep:
            return None
        return StudentStore(self.folder, students.keep, self.checkpoint)

    def env(self) -> PruningEnv:
        """Return the environment, on the device that this process has."""
        return make_env(self.settings, read(self))

    def agent(self, env: PruningEnv) -> Agent:
        """Return the agent as it is before the search."""
        settings = self.settings
        parameters = settings.agent_parameters()
        shipped = settings.agent_from == PRETRAINED
        if shipped:
            kind = env.action_kind
            shape = encoder(settings.agent, settings.space, FEATURES, kind)
            if settings.agent_part == "encoder":
                del shape["encoder"]  # a decoder may follow it
            parameters |= shape
        agent = build_agent(settings.agent, env, seed=settings.seed, **parameters)
        if settings.agent_from is not None:
            path = SHIPPED if shipped else user_path(settings.agent_from)
            adopt(agent, path, settings.agent_part)
        return agent

    def identity(self) -> list[object]:
        """Return what the result of the search depends on; files as paths."""
        settings = self.settings
        given = settings.latency_table, settings.agent_from
        files = [SHIPPED if p == PRETRAINED else user_path(p) for p in given if p]
        images = self.reward_images.fingerprint(), self.train_images.fingerprint()
        rest = settings.resolved()  # files by what is in them, not by their names
        rest = {k: v for k, v in rest.items() if k not in ("latency_table", "agent_from")}
        dense, graph = self.checkpoint, self.graph.digest
        named = f"{type(self.meaning).__module__}:{type(self.meaning).__qualname__}"
        return [dense.digest, *images, graph, *files, dense.name, named, rest]

    def __call__(self) -> Shared:
        """Make both, for a worker."""
        seed_everything(self.settings.seed)
        env = self.env()
        return Shared(env, self.agent(env))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a search is made from: the dense network, traced once, its images, and for some the
    network before training, a place for students and a folder in which calibrations are kept.
    task: what the outputs mean."""

    surgeon: Surgeon
    reward_images: Labelled
    train_images: Labelled
    initial: nn.Module | None = None
    store: StudentStore | None = None
    cache: Path | None = None
    task: Task = CLASSIFICATION

    @property
    def graph(self) -> ComputationalGraph:
        """The network's graph."""
        return self.surgeon.graph


@dataclass(frozen=True)
class Calibrated:
    """What was computed on calibration images, as far as the settings ask for it."""

    reconstruction: Reconstruction | None = None
    gates: Bottleneck | None = None

    @property
    def forward_images(self) -> int:
        """What it costs; a backward pass counts as two forward passes."""
        moments = self.reconstruction.calibration.forward_images if self.reconstruction else 0
        return moments + (self.gates.forward_images if self.gates else 0)


def run(task: SearchTask, journal: Path, watch: Watch | None = None) -> tuple[SearchResult, float]:
    """Search, and score the best plans again where the settings ask for it.

    Returns the evaluation equivalents spent before the search, too.  Agents that are to be kept are
    in the folder `AGENTS` of the journal.
    """
    settings, env = task.settings, task.env()
    if not settings.evaluations:
        return decided(env, task.agent(env), settings.seed), env.spent
    evaluations, again = settings.evaluations, None
    if settings.rescore is not None:
        images = settings.rescore.images
        more = labelled_images(task.train_images, images, settings.seed, device())
        calibration = None
        how = settings.rescore.compensation
        if how != "reward":
            count = settings.calibration_images
            calibration = sample(task.train_images, count, settings.seed, device())
        plans = settings.rescore.plans
        again = Rescoring.of(env.evaluate, plans, *more, calibration, settings.seed, how)
        evaluations = again.left_of(evaluations)
    env.controls = env.comparisons() if settings.controls else {}
    if settings.controls and not env.controls:
        name = type(env.space).__name__
        print(f"search: no controls, since {name} has no method `controls`", file=sys.stderr)
    env.reward_threshold = settings.target
    watched = Watched(watch, journal / AGENTS, settings.keep_every)
    with ray_workers(task, settings.ray) as workers:
        found = search(
            env,
            task.agent(env),
            evaluations=evaluations,
            batch=settings.batch,
            seed=settings.seed,
            leaders=1 if again is None else again.plans,
            journal=journal,
            progress=watched,
            workers=workers,
        )
    found = with_controls(found, env)
    if isinstance(env.evaluate, Students):
        env.evaluate.hold(found.plan, found.reward)
    return found if again is None else again.applied(found), env.spent


def read(task: SearchTask) -> Inputs:
    """Restore the networks on this process's device, and trace the dense one."""
    network = task.checkpoint.restore().to(device()).eval()
    initial = None if task.initial is None else task.initial.restore()
    surgeon, images = Surgeon(network, task.graph), (task.reward_images, task.train_images)
    cache = None if task.folder is None else scratch_root() / "calibration"
    return Inputs(surgeon, *images, initial, task.store, cache, task.meaning)


def calibrate(settings: SearchSettings, inputs: Inputs) -> Calibrated:
    """Run the calibration passes that importance, prior and compensation ask for."""
    asked = (settings.importance, settings.prior)
    scored = settings.evaluations > 0 and settings.reward.compensation in SOLVES
    moments = RECONSTRUCTION in asked or scored
    if not moments and BOTTLENECK not in asked:
        return Calibrated()
    seed = settings.seed
    images = sample(inputs.train_images, settings.calibration_images, seed, device())
    if moments:
        _refuse_too_few(settings, images)
    gates, budget = None, settings.budget.budget(inputs.graph)
    if BOTTLENECK in asked:
        gates = bottleneck(
            inputs.surgeon.analysis,
            images,
            fraction=budget.fraction,
            resource=budget.resource,
            generator=generator(seed, "bottleneck"),
            settings=settings.bottleneck,
            task=inputs.task,
        )
    found = reconstruct(inputs.surgeon, images, seed, inputs.cache) if moments else None
    return Calibrated(found, gates)


def _refuse_too_few(settings: SearchSettings, images: Tensor) -> None:
    """Raise `UserError` where a calibration pass leaves no evaluation for a plan."""
    spent = price(images) / EQUIVALENT
    if 0 < settings.evaluations <= spent:
        raise UserError(
            f"evaluations {settings.evaluations}: the calibration pass on {len(images)} images "
            f"alone counts as {spent:.4g}: allow at least {math.floor(spent) + 1}, or set "
            "search.calibration_images lower"
        )


def scores(settings: SearchSettings, inputs: Inputs, calibrated: Calibrated) -> Scored:
    """Score every channel; return what that cost in addition to the calibration."""
    name, network = settings.importance, inputs.surgeon.network
    if settings.space == "single_weights":
        examples = partial(labelled_examples, inputs.train_images, settings.seed, device())
        given = network, inputs.graph, examples, inputs.initial, inputs.task
        return score_weights(name, *given)
    if name == RECONSTRUCTION and calibrated.reconstruction is not None:
        return Scored(calibrated.reconstruction.importance)
    if name == BOTTLENECK and calibrated.gates is not None:
        return Scored(calibrated.gates.importance)
    if name in SALIENCIES:
        examples = partial(labelled_examples, inputs.train_images, settings.seed, device())
        return score(name, network, inputs.graph, examples, inputs.initial, inputs.task)
    return Scored(importance(name, network, inputs.graph))


def make_space(
    settings: SpaceSettings,
    inputs: Inputs,
    importance: Importance,
    curves: Mapping[str, Tensor] | None = None,
    prior: Mapping[str, float] | str | None = None,
    project: bool = True,
) -> Space:
    """Return the search space; curves, prior, project: as its class has them."""
    table = latency_table(settings)
    return build_space(
        settings.space,
        network=inputs.surgeon.network,
        graph=inputs.graph,
        importance=importance,
        budget=settings.budget.budget(inputs.graph),
        table=table,
        min_channels=settings.min_channels,
        min_fraction=settings.min_fraction or 0.0,
        multiple=settings.multiple or (1 if table is None else table.multiple),
        view="plain" if settings.encoder == "plain" else "hierarchical",
        curves=curves,
        prior=prior,
        project=project,
        kernels=settings.kernels,
    )


def latency_table(settings: SpaceSettings) -> LatencyTable | None:
    """Return the table that a budget of latency is counted by; None for another budget.

    Raises `UserError` where it is not of what `latency_for` asks.
    """
    path = settings.latency_table
    if path is None or settings.budget.latency is None:
        return None
    table = LatencyTable.load(user_path(path))
    table.refuse_other(path, **dict(settings.latency_for))
    return table


def make_evaluator(
    settings: SearchSettings, inputs: Inputs, found: Reconstruction | None = None
) -> Evaluator:
    """Return what scores plans on the reward images."""
    reward, seed, train_images = settings.reward, settings.seed, inputs.train_images
    if settings.students is not None:
        return Students(
            inputs.surgeon, train_images, inputs.reward_images, settings.students, reward,
            budget=settings.budget.budget(inputs.graph), store=inputs.store, seed=seed,
            task=inputs.task,
        )  # fmt: skip
    fresh = None
    if reward.statistics == "images":
        fresh = sample(train_images, reward.recalibration_images, seed, device())
    solve = None
    if reward.compensation in SOLVES and found is not None:
        solve = SOLVES[reward.compensation](inputs.graph, found.calibration)
    images, labels = mixed(inputs.reward_images, seed)

    def make(images: Tensor, labels: Targets) -> OneShot:
        found = OneShot(
            inputs.surgeon, images, labels, reward,
            recalibration=fresh, compensate=solve, task=inputs.task,
        )  # fmt: skip
        if images.device.type == "cuda":
            found.run_masked()
        return found

    full = make(images, labels)
    if reward.training is not None:
        return Trained(full, images, train_images, reward.training, seed)
    if 0 < reward.race < len(images):
        return Racing(make(images[: reward.race], labels[: reward.race]), full)
    return full


def make_env(
    settings: SearchSettings, inputs: Inputs, calibrated: Calibrated | None = None
) -> PruningEnv:
    """Return the environment of a search for a plan.

    calibrated: of a calibration that was run before; the search is charged for it all the same.
    """
    if settings.space == "filters":  # refused before anything is computed
        least = settings.min_channels, settings.min_fraction or 0.0
        filter_choice(inputs.graph, None, settings.budget.budget(inputs.graph), *least)
    calibrated = calibrated or calibrate(settings, inputs)
    scored, found = scores(settings, inputs, calibrated), calibrated.reconstruction
    prior: Mapping[str, float] | str | None = None
    if settings.prior in (RECONSTRUCTION, DEPTH):
        prior = settings.prior
    elif calibrated.gates is not None and settings.prior == BOTTLENECK:
        prior = calibrated.gates.keep_ratios
    space = make_space(
        settings,
        inputs,
        scored.importance,
        None if found is None else found.curves,
        prior,
        project=settings.reward.kind != CONSTRAINED,
    )
    if settings.reward.kind in SMALLEST and isinstance(space, ChannelSpace):
        space = space.within()
    evaluator = make_evaluator(settings, inputs, found) if settings.evaluations else Unevaluated()
    steps, budgets = (settings.max_steps, settings.in_turn), settings.budgets
    env = PruningEnv(space, evaluator, *steps)
    if budgets:
        env = BudgetsEnv(space, budgets, evaluator, *steps)
    env.spent = (calibrated.forward_images + scored.forward_images) / EQUIVALENT
    return env


def mixed(images: Labelled, seed: int) -> tuple[Tensor, Targets]:
    """Return all images and labels in an order drawn by the seed: folders come class by class.

    Parts of them, for batch statistics and races, then have all classes.
    """
    whole, labels = next(iter(images.batches(len(images), device())))
    order = torch.randperm(len(whole), generator=generator(seed, "order of reward images"))
    order = order.to(whole.device)
    return whole[order], labels[order]
