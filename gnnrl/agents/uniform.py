"""The same decision everywhere: a control of every search."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action
from gnnrl.agents.saved import Fixed
from gnnrl.agents.settings import UniformSettings, split
from gnnrl.rl.observation import ActionKind, ObservationSpec


class Uniform(Fixed):
    """Decides `level` for every node, which a space projects onto its budget: the uniform plan.

    binary: whether `level` is at least one half; categorical: the first node that is allowed.
    """

    def __init__(self, action_kind: ActionKind, settings: UniformSettings | None = None) -> None:
        self.action_kind = action_kind
        self.level = (settings or UniformSettings()).level

    def action(self, observation: Data, generator: torch.Generator) -> np.ndarray | int:
        """Decide the same for every node."""
        size = observation.decision_index.numel()
        level = torch.full((size,), self.level, dtype=torch.float64)
        return as_action(self.action_kind, level, observation)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Uniform:
    """Return the agent with these parameters."""
    (own,) = split(parameters, UniformSettings)
    return Uniform(spec.action_kind, own)
