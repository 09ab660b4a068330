"""Random actions: the other thing every search has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action, random_vector
from gnnrl.agents.settings import split
from gnnrl.rl.observation import ActionKind, ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout


class Random:
    """Decides uniformly among the allowed actions, on graphs of any size.

    greedy: there is nothing to prefer, so it decides at random as well.
    """

    def __init__(self, action_kind: ActionKind) -> None:
        self.action_kind = action_kind

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Draw an action for each observation."""
        return [
            Decision(as_action(self.action_kind, random_vector(seen, generator), seen))
            for seen in observations
        ]

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learn nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Random:
    """Return the agent; it has no parameters."""
    split(parameters)
    return Random(spec.action_kind)
