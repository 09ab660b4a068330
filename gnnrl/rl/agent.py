"""The interface of agents to the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch_geometric.data import Data

from gnnrl.rl.env import GraphEnv
from gnnrl.rl.rollout import Decision, Rollout


class Agent(Protocol):
    """Acts on observations, learns from rewards."""

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide on each observation; `greedy` without exploring.

        In a search the order is that of the episodes, those that go on.
        """

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learn from finished episodes; return figures for the history."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state (optimiser and random numbers included): tensors, numbers, containers.

        An agent that loads it continues exactly as this one would.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an agent with the same settings; else `UserError`."""


@runtime_checkable
class Prepared(Protocol):
    """An agent that evaluates plans before the search, such as for a warm start."""

    def prepare(self, env: GraphEnv) -> float:
        """Prepare; return the cost, in evaluation equivalents, which is charged to the search."""
