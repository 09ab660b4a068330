"""Evolution by level switches between decisions, as in EvoPress (Sieberling et al. 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnrl.agents.climbing import Climber, MoveSettings, require_continuous
from gnnrl.agents.settings import split
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.rollout import Rollout
from gnnrl.settings import Count, Positive, Probability, Settings


class EvoPressSettings(Settings):
    """The switches of an offspring; a generation is `search.batch` plans."""

    initial_action: Probability = 0.5
    """Where it starts."""
    step: Positive = 0.2
    """The most that a switch gives to one decision and takes from another one."""
    switches: Count = 3
    """The most switches of one offspring; fewer are more likely."""


class EvoPress(Climber):
    """Raises one decision and lowers another; the best of parent and offspring is the next parent.

    Successive halving of a generation is the evaluator's: with `search.reward.race` the offspring
    pass few images first, and only those that are not clearly worse pass all of them.
    """

    name = "evopress"

    def __init__(self, settings: EvoPressSettings | None = None) -> None:
        self.settings = settings or EvoPressSettings()
        super().__init__(MoveSettings(step=self.settings.step))

    def start(self, seen: Any) -> Tensor:
        """Return the first parent."""
        return torch.full((seen.decision_index.numel(),), self.settings.initial_action)

    def move(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        """Return an offspring: the smaller of two draws is how many switches it has."""
        moved, most = origin.clone(), self.settings.switches
        count = int(torch.randint(1, most + 1, (2,), generator=generator).min())
        for _ in range(count):
            pair = torch.randperm(len(origin), generator=generator)[:2]
            amount = self.settings.step * torch.rand((), generator=generator)
            moved[pair[0]] += amount
            moved[pair[1:]] -= amount
        return moved.clamp(0.0, 1.0)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Select the next parent; the size of switches stays the same."""
        super().learn(rollout)
        self.step = self.settings.step
        return {"best": self.best_reward}


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> EvoPress:
    """Return the agent with these parameters."""
    (own,) = split(parameters, EvoPressSettings)
    require_continuous(spec.action_kind, "evopress")
    return EvoPress(own)
