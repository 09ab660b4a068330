"""Random actions: a control of every search."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action, random_vector
from gnnrl.agents.saved import Fixed
from gnnrl.agents.settings import split
from gnnrl.rl.observation import ActionKind, ObservationSpec


class Random(Fixed):
    """Decides uniformly among the allowed actions, greedily too, on graphs of any size."""

    def __init__(self, action_kind: ActionKind) -> None:
        self.action_kind = action_kind

    def action(self, observation: Data, generator: torch.Generator) -> np.ndarray | int:
        """Draw an action."""
        return as_action(self.action_kind, random_vector(observation, generator), observation)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Random:
    """Return the agent; it has no parameters."""
    split(parameters)
    return Random(spec.action_kind)
