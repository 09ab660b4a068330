"""What the artifacts are of: made in the same way when they are written and when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl.search.loop import SearchResult
from tests.golden import assemble
from tests.golden.cases import AGENTS, HALF
from tests.golden.world import world

NETWORK, CLASSES, SHAPE = "basic_cnn_eighth", 10, (1, 20, 20)
SMALL = {"hidden": 4, "layers": 1}
PLAYERS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "ppo": (
        {"space": "channels", "budget": HALF},
        {**AGENTS["ppo"], **SMALL, "elites": 1},
    ),
    "ddpg": (
        {"space": "channels", "budget": HALF},
        {**AGENTS["ddpg"], **SMALL, "encoder": "plain", "buffer_size": 2},
    ),
    "reinforce": (
        {"space": "filters", "budget": {"sparsity": 0.5}},
        {**AGENTS["plackett_luce"], **SMALL},
    ),
}
"""By agent: the task it was made for, and its settings; reinforce is the one that draws subsets."""


def environment(name: str) -> Any:
    """The task that an agent was made for."""
    return assemble.environment(world(), **PLAYERS[name][0])


def agent(name: str, env: Any) -> Any:
    """A new agent for it."""
    return assemble.agent(name, env, PLAYERS[name][1])


def searched(name: str, env: Any, agent: Any, journal: Path | None = None) -> SearchResult:
    """The search that it was in."""
    return assemble.searched(env, agent, 6, 2, journal)


def greedy(agent: Any, env: Any) -> list[float]:
    """What an agent thinks best of the task."""
    first, _ = env.reset(seed=0)
    (decision,) = agent.act([first], torch.Generator().manual_seed(0), greedy=True)
    return [float(value) for value in decision.action]


def image() -> Tensor:
    """Two images for the network."""
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
