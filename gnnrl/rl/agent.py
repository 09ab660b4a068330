"""What the search asks of an agent."""

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

        An agent that loads it goes on exactly as this one would.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of an agent with the same parameters."""


@runtime_checkable
class Prepared(Protocol):
    """An agent that looks at the environment before the search, such as for a warm start."""

    def prepare(self, env: GraphEnv) -> float:
        """Get ready; return what it cost, in evaluation equivalents, charged to the search."""
