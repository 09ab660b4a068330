"""The same decision everywhere: what every search has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.agents.settings import split
from gnnrl.rl.observation import ActionKind, ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout
from gnnrl.settings import Probability, Settings


class UniformSettings(Settings):
    """The one decision."""

    level: Probability = 0.5
    """The action of every decision; binary: the chance of True."""


class Uniform:
    """Decides `level` for every node (binary: whether it is at least one half; categorical: the
    first allowed node). A space that projects on a budget makes it the uniform plan."""

    def __init__(self, action_kind: ActionKind, settings: UniformSettings | None = None) -> None:
        self.action_kind = action_kind
        self.level = (settings or UniformSettings()).level

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide the same on every node."""
        return [Decision(self._action(observation)) for observation in observations]

    def _action(self, observation: Data) -> np.ndarray | int:
        size, mask = observation.decision_index.numel(), observation.get("action_mask")
        allowed = np.ones(size, dtype=bool) if mask is None else mask.numpy()
        if self.action_kind == "categorical":
            return int(allowed.argmax())
        if self.action_kind == "binary":
            return allowed & (self.level >= 0.5)
        return np.full(size, self.level, dtype=np.float32)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learn nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Uniform:
    """Return the agent with these parameters."""
    (own,) = split(parameters, UniformSettings)
    return Uniform(spec.action_kind, own)
