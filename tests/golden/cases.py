"""Small searches of every kind, and what comes of them as plain values.

No setting stands on a default of the library, so that a changed default changes nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden import assemble
from tests.golden.world import world

GNN = {"encoder": "multi_stage", "hidden": 16, "layers": 2, "blind": False,
       "message_passing": True}  # fmt: skip
START = {"max_grad_norm": 0.5, "initial_action": 0.7}
AGENTS: Mapping[str, Mapping[str, Any]] = {
    "ppo": {
        **GNN, **START, "learning_rate": 0.02, "n_epochs": 6, "batch_size": 256, "gamma": 1.0,
        "gae_lambda": 0.95, "ent_coef": 0.001, "vf_coef": 0.5, "clip_range": 0.3, "target_kl": 0.2,
        "initial_std": 1.0, "imitation_coef": 0.2, "elites": 8, "credit": True,
        "credit_decay": 0.8, "freeze_encoder": False,
    },
    "ddpg": {
        **GNN, **START, "actor_learning_rate": 0.01, "critic_learning_rate": 0.01, "gamma": 1.0,
        "tau": 0.02, "batch_size": 4, "buffer_size": 50, "updates": 4, "max_updates": 8,
        "warmup": 2, "noise_std": 0.3, "noise_decay": 0.98,
    },
    "a3c": {
        **GNN, **START, "learning_rate": 0.05, "gamma": 1.0, "gae_lambda": 1.0, "ent_coef": 0.001,
        "vf_coef": 0.5, "initial_std": 0.7, "max_staleness": 8, "freeze_encoder": False,
    },
    "reinforce": {
        **GNN, **START, "learning_rate": 0.05, "gamma": 1.0, "ent_coef": 0.001,
        "initial_std": 0.7, "freeze_encoder": False,
    },
    "annealing": {
        "temperature": 0.5, "cooling": 0.98, "step": 0.25, "moved": 0.25, "initial_action": 0.7,
    },
    "evolution": {"initial_action": 0.7, "sigma": 0.2, "popsize": 0, "diagonal": True},
    "sensitivity": {"keep_ratio": 0.5, "step": 0.1, "moved": 0.25},
    "plackett_luce": {
        **GNN, "learning_rate": 0.002, "table_learning_rate": 0.05, "ent_coef": 0.0,
        "max_grad_norm": 1.0, "credit": True, "credit_decay": 0.995, "freeze_encoder": False,
    },
    "swaps": {
        "acceptance": 0.3, "cooling": 0.9, "moved": 0.1, "patience": 4, "reheat": 0.5,
        "learned": True,
    },
}  # fmt: skip
"""By agent; `plackett_luce` and `swaps` are what reinforce and annealing are on filters."""

STUDENTS = {
    "recipe": {
        "epochs": 1, "batch_size": 60, "learning_rate": 0.02, "momentum": 0.9, "nesterov": True,
        "weight_decay": 0.0005, "schedule": "constant", "milestones": (), "warmup_epochs": 0,
        "label_smoothing": 0.0, "augment": False, "bf16": False, "channels_last": False,
    },
    "distillation": {"alpha": 0.9, "temperature": 4.0, "kind": "kl", "weight": None},
    "ease_in": 15,
    "keep": 0,
}  # fmt: skip
TRAINING = {"epochs": 0.5, "batch_size": 60, "learning_rate": 0.002, "momentum": 0.9,
            "weight_decay": 0.0005}  # fmt: skip
SCHEDULE = {
    "seed": 0, "kinds": ("layered",), "machines": 2, "smallest": 5, "largest": 6, "most_tasks": 4,
    "lookahead": True, "episodes": 6, "batch": 2, "hidden": 8, "layers": 1,
    "message_passing": True, "learning_rate": 0.003, "n_epochs": 2, "batch_size": 32,
    "gamma": 0.95, "gae_lambda": 0.95, "ent_coef": 0.0005, "target_kl": 0.1, "test_problems": 2,
    "test_tasks": 5, "large_tasks": 6, "tiny_tasks": 4, "samples": 2,
}  # fmt: skip
PLAIN = {"hierarchical": False, "agent": {**AGENTS["ppo"], "encoder": "plain"}}


def found(
    space: str,
    name: str,
    *,
    budget: Mapping[str, float],
    agent: Mapping[str, Any] | None = None,
    evaluations: int = 6,
    batch: int = 2,
    ties: bool = False,
    **task: Any,
) -> dict[str, Any]:
    """Search; return the plans in order, their rewards, what was spent, and what was seen first.

    ties: scores are as good as equal, so that their order is no number to be compared.
    """
    env = assemble.environment(world(), space=space, budget=budget, **task)
    first, _ = env.reset(seed=0)
    player = assemble.agent(name, env, AGENTS.get(name, {}) if agent is None else agent)
    result = assemble.searched(env, player, evaluations, batch)
    (last,) = player.act([first], torch.Generator().manual_seed(0), greedy=True)
    rows = result.evaluations
    return {
        "observation": seen(first, sums=not ties),
        "plans": [row["plan"][:16] for row in rows],
        "rewards": [float(row["reward"]) for row in rows],
        "status": sorted({row["status"] for row in rows}),
        "spent_before": float(env.spent),
        "spent": float(sum(row["cost"] for row in rows)),
        "best_plan": result.plan.digest[:16],
        "last_action": {
            "values": np.asarray(last.action, np.float64).tolist(),
            "bytes": digest(last.action),
        },
    }


def subnet(compensation: str, recalibration: int) -> dict[str, Any]:
    """Cut to a plan; return how large the weights are, and what the subnet says."""
    given = world()
    env = assemble.environment(given, space="channels", budget={"flops": 0.5})
    plan = env.space.uniform()
    network = assemble.pruned(given, plan, compensation, recalibration).eval()
    x, _ = next(given.reward_images.batches(4))
    with torch.no_grad():
        logits = network(x)
    state = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    return {
        "plan": plan.digest[:16],
        "logits": logits.tolist(),
        "norms": {name: float(value.double().norm()) for name, value in state.items()},
        "weights": {"bytes": digest(*state.values())},
    }


def schedules() -> dict[str, Any]:
    """Train the scheduler on job graphs of five or six tasks."""
    result, makespans = assemble.scheduled(SCHEDULE)
    return {
        "rewards": [float(row["reward"]) for row in result.evaluations],
        "best_machines": list(result.plan.machine),
        "best_starts": list(result.plan.start),
        "makespans": [float(value) for value in makespans],
    }


def seen(observation: Any, sums: bool = True) -> dict[str, Any]:
    """Whole numbers of an observation by their digest, others by the sum of each column."""
    tensors = {key: observation[key] for key in sorted(observation.keys())}
    floating = {k: v for k, v in tensors.items() if v.is_floating_point()}
    whole = {k: v for k, v in tensors.items() if k not in floating}
    return {
        "shapes": {key: list(value.shape) for key, value in tensors.items()},
        "sums": {k: v.double().sum(0).flatten().tolist() for k, v in floating.items() if sums},
        "whole": {key: digest(value.long()) for key, value in whole.items()},
        "floating": {"bytes": digest(*floating.values())},
    }


def digest(*values: Tensor | np.ndarray) -> str:
    """A short digest of the bytes of arrays."""
    arrays = [np.ascontiguousarray(torch.as_tensor(value).detach().numpy()) for value in values]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


PLAYERS = ("ppo", "ddpg", "a3c", "reinforce", "annealing", "evolution", "random", "uniform")
HALF = {"flops": 0.5}
channels = partial(found, "channels", budget=HALF)
filters = partial(found, "filters", budget={"sparsity": 0.5})
layers = partial(found, "layers", budget={"parameters": 0.8})

CASES: Mapping[str, Callable[[], dict[str, Any]]] = {
    **{f"channels-{name}": partial(channels, name) for name in PLAYERS},
    "channels-sensitivity": partial(channels, "sensitivity", evaluations=12),
    "channels-ppo-reconstruction-gram": partial(
        channels, "ppo", importance="reconstruction", prior="reconstruction", compensation="gram"
    ),
    "channels-ppo-bottleneck": partial(channels, "ppo", prior="bottleneck"),
    "channels-ppo-three-steps": partial(
        channels, "ppo", max_steps=3, agent={**AGENTS["ppo"], "initial_action": 0.9}
    ),
    "channels-ppo-plain": partial(channels, "ppo", **PLAIN),
    "channels-ppo-parameters": partial(channels, "ppo", budget={"parameters": 0.5}),
    "channels-ppo-latency": partial(channels, "ppo", budget={"latency": 0.5}),
    "channels-ppo-race": partial(channels, "ppo", race=100, batch=4),
    "channels-ppo-training": partial(channels, "ppo", training=TRAINING, evaluations=10),
    "channels-ppo-accuracy": partial(channels, "ppo", reward="accuracy"),
    "channels-ppo-divergence": partial(channels, "ppo", reward="divergence"),
    "filters-reinforce": partial(filters, "reinforce", agent=AGENTS["plackett_luce"]),
    "filters-annealing": partial(filters, "annealing", agent=AGENTS["swaps"]),
    "filters-random": partial(filters, "random"),
    "filters-snip": partial(filters, "snip", importance="snip"),
    "filters-synflow-shuffled": partial(
        filters, "synflow_shuffled", importance="synflow", ties=True
    ),
    "layers-ppo-students": partial(layers, "ppo", reward="n2n", students=STUDENTS),
    "layers-ppo-constrained": partial(
        layers, "ppo", budget={"parameters": 0.6}, reward="n2n_constrained", students=STUDENTS
    ),
    "layers-reinforce": partial(layers, "reinforce"),
    "joint-ppo": partial(
        found,
        "joint",
        "ppo",
        budget=HALF,
        importance="reconstruction",
        prior="reconstruction",
        compensation="gram",
    ),
    "joint-random": partial(found, "joint", "random", budget={"parameters": 0.5}),
    "weights-ppo": partial(found, "weights", "ppo", budget={"parameters": 0.5}),
    "prune-sequential": partial(subnet, "sequential", 0),
    "prune-sequential-recalibrated": partial(subnet, "sequential", 40),
    "prune-recalibrated": partial(subnet, "none", 40),
    "scheduling-ppo": schedules,
}


def result(name: str) -> dict[str, Any]:
    """What a case gives, as plain values."""
    with assemble.settled():
        return CASES[name]()
