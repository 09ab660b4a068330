"""Greedy sensitivity: look at every decision alone, decide from that, then try what is near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from gnnrl.agents.climbing import Climber, MoveSettings, require_continuous
from gnnrl.agents.settings import split
from gnnrl.errors import UserError
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import ObservationSpec
from gnnrl.settings import BelowOne


class SensitivitySettings(MoveSettings):
    """How far a decision is pruned when it is tried alone; the moves after that."""

    keep_ratio: BelowOne = 0.5
    """Of the one decision that is tried."""


class Probed(Protocol):
    """A search space whose decisions can be tried one by one."""

    def probes(self, keep_ratio: float) -> list[Any]:
        """Return the dense plan, then for each decision the plan that prunes it alone."""

    def informed(self, keep_ratio: float, losses: Sequence[float]) -> np.ndarray:
        """Return the action [A] in [0, 1] that these losses of the probes speak for."""


class Sensitivity(Climber):
    """Evaluates every decision alone before the search, first the action which that speaks for.

    From then on it climbs.
    """

    name = "sensitivity"

    def __init__(self, settings: SensitivitySettings | None = None) -> None:
        self.settings = settings or SensitivitySettings()
        super().__init__(self.settings)

    def prepare(self, env: GraphEnv) -> float:
        """Try every decision; return what it cost, in evaluation equivalents."""
        space = getattr(env, "space", None)
        if not hasattr(space, "probes") or not hasattr(space, "informed"):
            raise UserError(
                f"the agent sensitivity looks at decisions one by one, which {env.name!r} does not "
                "offer (its space needs `probes` and `informed`); take another agent"
            )
        keep_ratio = self.settings.keep_ratio
        found = env.evaluate(space.probes(keep_ratio))
        action = space.informed(keep_ratio, [-evaluation.reward for evaluation in found])
        self.best = torch.as_tensor(action, dtype=torch.float32)
        return sum(evaluation.cost for evaluation in found)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Sensitivity:
    """Return the agent with these parameters."""
    (own,) = split(parameters, SensitivitySettings)
    require_continuous(spec.action_kind, "sensitivity")
    return Sensitivity(own)
