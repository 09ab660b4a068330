"""Simulated annealing (Kirkpatrick et al. 1983) on the action itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import allowed, random_vector
from gnnrl.agents.black_box import BlackBox, moved
from gnnrl.agents.settings import AnnealingSettings, split
from gnnrl.rl.observation import ActionKind, ObservationSpec
from gnnrl.rl.rollout import Rollout


class Annealing(BlackBox):
    """Moves from the current action; accepts a worse one with the probability of Metropolis.

    The energy is minus the reward of the current action, not of the best. The moves of one batch
    start from the same action and are accepted or rejected one after the other.
    """

    name = "annealing"
    STATE = ("current", "best", "reward", "best_reward", "unit", "temperature", "generator")

    def __init__(
        self, action_kind: ActionKind, settings: AnnealingSettings | None = None, seed: int = 0
    ) -> None:
        super().__init__(action_kind)
        self.settings = settings or AnnealingSettings()
        self.generator = torch.Generator().manual_seed(seed)  # of accepting worse actions
        self.current: Tensor | None = None
        self.reward = -math.inf
        self.unit, self.temperature = 0.0, self.settings.temperature
        self.accepted = 0  # moves of one batch

    def start(self, observation: Data) -> Tensor:
        """Return `initial_action` for every decision."""
        return torch.full((observation.decision_index.numel(),), self.settings.initial_action)

    def ask(self, observations: Sequence[Data], generator: torch.Generator) -> list[Tensor]:
        """Return moves from the current action."""
        if self.current is not None:
            return [self._move(self.current, seen, generator) for seen in observations]
        pairs = enumerate(observations)
        return [self._first(seen, generator, alone=place == 0) for place, seen in pairs]

    def _first(self, seen: Data, generator: torch.Generator, alone: bool) -> Tensor:
        """Where to start: one episode at `initial_action`, the others one move away."""
        start = self.start(seen)
        if self.action_kind == "binary":
            return (random_vector(seen, generator) < start).float()
        first = alone and self.action_kind == "continuous"
        return start if first else self._move(start, seen, generator)

    def _move(self, origin: Tensor, seen: Data, generator: torch.Generator) -> Tensor:
        self.require_size(origin, seen)
        if self.action_kind == "categorical":
            return random_vector(seen, generator)
        if self.action_kind == "continuous":
            return moved(origin, self.settings.moved, self.settings.step, generator)
        free = allowed(seen).nonzero().squeeze(1)
        count = max(1, round(self.settings.moved * len(free)))
        chosen = free[torch.randperm(len(free), generator=generator)[:count]]
        flips = chosen[: torch.randint(1, count + 1, (), generator=generator)]
        return origin.index_copy(0, flips, 1 - origin[flips])

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Accept or reject the moves and cool down."""
        if self.unit == 0.0:
            rewards = torch.tensor([e.reward for e in rollout.episodes], dtype=torch.float64)
            self.unit = float(rewards.std(correction=0))
        self.accepted = 0
        figures = super().learn(rollout)
        return {"accepted": self.accepted / len(rollout.episodes), **figures}

    def figures(self) -> dict[str, float]:
        """Return the temperature in the unit of the reward."""
        return {"temperature": self.temperature * self.unit}

    def tell(self, vector: Tensor, reward: float) -> None:
        """Accept or reject a move (Metropolis et al. 1953), then cool down."""
        gain, heat = reward - self.reward, self.temperature * self.unit
        chance = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        if gain >= 0 or (heat > 0 and chance < math.exp(gain / heat)):
            self.current, self.reward = vector, reward
            self.accepted += 1
        self.temperature *= self.settings.cooling


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Annealing:
    """Return the agent with these parameters."""
    (own,) = split(parameters, AnnealingSettings)
    return Annealing(spec.action_kind, own, seed)
