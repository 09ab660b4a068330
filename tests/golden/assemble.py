"""The one place where the golden cases touch the library's constructors.

When a signature changes, this file changes; the cases and `golden.json` do not.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl.agents.registry import build_agent
from gnnrl.graph.latency import POINTS, LatencyTable, keys
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.repair import repaired
from gnnrl.pruning.settings import PruneSettings
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device, seed_everything
from gnnrl.scheduling.compare import agent_schedules
from gnnrl.scheduling.generators import held_out
from gnnrl.scheduling.settings import Schedule
from gnnrl.scheduling.train import build_env
from gnnrl.search.build import Inputs, make_env
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import SearchResult, search
from gnnrl.search.settings import ALIASES, SearchSettings
from stages.schedule import train
from tests.golden.world import World

SEED = 5


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """One thread, the processor, deterministic algorithms; afterwards as it was before."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    named = os.environ.get("GNNRL_DEVICE")
    os.environ["GNNRL_DEVICE"] = "cpu"
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            seed_everything(SEED)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        os.environ.pop("GNNRL_DEVICE")
        if named is not None:
            os.environ["GNNRL_DEVICE"] = named


def environment(
    world: World,
    *,
    space: str,
    budget: Mapping[str, float],
    importance: str = "l1",
    prior: str = "none",
    compensation: str = "none",
    reward: str = "loss",
    max_steps: int = 1,
    race: int = 0,
    hierarchical: bool = True,
    students: Mapping[str, Any] | None = None,
    training: Mapping[str, float] | None = None,
) -> PruningEnv:
    """The task of a search, as the stage puts it together."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "latency.json"
        latency_table(world).save(table)
        settings = SearchSettings(
            seed=SEED,
            space=space,
            agent="random",
            budget=budget,
            importance=importance,
            prior=prior,
            calibration_images=40,
            latency_table=str(table) if "latency" in budget else None,
            reward={
                "kind": reward,
                "statistics": "matched",
                "recalibration_images": 40,
                "compensation": compensation,
                "precision": "float32",
                "batch_size": 250,
                "race": race,
                "training": training,
            },
            max_steps=max_steps,
            bottleneck={"batches": 3, "batch_size": 8, "learning_rate": 0.2},
            students=students,
            encoder="multi_stage" if hierarchical else "plain",
            min_channels=1,
            multiple=1,
        )
        surgeon = Surgeon(world.network.to(device()).eval(), world.graph)
        return make_env(settings, Inputs(surgeon, world.reward_images, world.train_images))


def agent(name: str, env: PruningEnv, settings: Mapping[str, Any]) -> Any:
    """An agent for the environment."""
    if name in ALIASES:
        name, settings = "ranking", ALIASES[name]["ranking"]
    return build_agent(name, env, seed=SEED, **settings)


def searched(
    env: PruningEnv, agent: Any, evaluations: int, batch: int, journal: Path | None = None
) -> SearchResult:
    """What the agent finds.  journal: a folder from which a killed search goes on."""
    return search(env, agent, evaluations=evaluations, batch=batch, seed=SEED, journal=journal)


def latency_table(world: World) -> LatencyTable:
    """Made up: what an operation takes grows with the channels it reads and writes."""
    steps = range(1, POINTS + 1)
    grids = {
        key: tuple(tuple(round(0.01 * (1 + place % 3) * a * b, 5) for b in steps) for a in steps)
        for place, key in enumerate(sorted({key for key in keys(world.graph) if key}))
    }
    return LatencyTable(grids, 1, "none")


def pruned(world: World, plan: PruningPlan, compensation: str, recalibration: int) -> nn.Module:
    """The subnet of a plan, as the stage makes it."""
    settings = PruneSettings(
        compensation=compensation, calibration_images=240, recalibration_images=recalibration
    )
    surgeon = Surgeon(world.network, world.graph)
    return repaired(surgeon, plan, settings, world.train_images, SEED)


def scheduled(settings: Mapping[str, Any]) -> tuple[SearchResult, list[float]]:
    """A training of the scheduler, and the makespans of what it schedules afterwards."""
    typed = Schedule(**settings)
    found = train(typed)
    problems = held_out(typed.test_problems, typed.test_tasks, typed.machines, typed.seed)
    done = agent_schedules(found.agent, build_env(typed), problems)
    return found, [schedule.makespan for schedule in done]
