"""Pruning as a task for an agent, put together from its parts, and what came of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.calibration import calibration_images
from gnnrl.data.images import Labelled
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.importance import importance
from gnnrl.runtime import atomic_write, device, write_csv, write_json
from gnnrl.search.budget import Budget
from gnnrl.search.env import PruningEnv
from gnnrl.search.evaluator import Evaluator
from gnnrl.search.loop import SearchResult
from gnnrl.search.spaces.channels import ChannelSpace

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def channel_task(
    network: nn.Module,
    graph: ComputationalGraph,
    reward_images: Labelled,
    train_images: Labelled,
    *,
    seed: int,
    budget: Mapping[str, float | None],
    criterion: str,
    reward: str,
    statistics: str,
    recalibration_images: int,
    precision: str,
    batch_size: int,
    max_steps: int,
    **space: Any,
) -> PruningEnv:
    """Return the environment of a search in the space `channels`, on the device found.

    budget: the fields of `Budget`.  criterion: which channels of a group go first.
    statistics: of batch norm, as `Evaluator` has it, or "images": measured on as many training
    images as `recalibration_images` says.  precision: a key of PRECISIONS.
    space: further settings of `ChannelSpace`.
    """
    network = network.to(device())
    channels = ChannelSpace(graph, importance(criterion, network, graph), Budget(**budget), **space)
    images, labels = next(iter(reward_images.batches(len(reward_images), device())))
    evaluator = Evaluator(
        network,
        graph,
        images,
        labels,
        statistics=_statistics(statistics, train_images, recalibration_images, seed),
        reward=reward,
        precision=PRECISIONS[precision],
        batch_size=batch_size,
    )
    return PruningEnv(channels, evaluator, max_steps)


def _statistics(kind: str, images: Labelled, count: int, seed: int) -> str | Tensor:
    return calibration_images(images, count, seed, device()) if kind == "images" else kind


def save(folder: Path, env: PruningEnv, result: SearchResult) -> None:
    """Write the plan, every evaluated plan, the agent's history, the agent, and the figures."""
    result.plan.save(folder / "plan.json")
    write_csv(folder / "evaluations.csv", [r for r in result.evaluations if not r["cached"]])
    write_csv(folder / "history.csv", result.history)
    state = io.BytesIO()  # a file's name would stand in its bytes
    torch.save(result.agent.state_dict(), state)
    atomic_write(folder / "agent.pt", state.getvalue())
    write_json(folder / "metrics.json", {"search": summary(env, result)})


def summary(env: PruningEnv, result: SearchResult) -> dict[str, float]:
    """Return the figures of the best plan and what it took to find it."""
    best = max(result.evaluations, key=lambda row: row["reward"])
    return {
        "reward": result.reward,
        "reward_accuracy": best["accuracy"],
        "flops_kept": env.space.cost(result.plan).flops / env.space.dense.flops,
        "plans": sum(not row["cached"] for row in result.evaluations),
        "evaluations": result.history[-1]["spent"],
    }
