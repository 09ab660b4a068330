"""Simulated annealing (Kirkpatrick et al. 1983) on the action itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import allowed, as_action, random_vector, require_size
from gnnrl.agents.settings import split
from gnnrl.rl.observation import ActionKind, ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout, require_single_steps
from gnnrl.settings import Positive, Probability, Settings, Share


class AnnealingSettings(Settings):
    """Simulated annealing; temperatures are in units of the spread of the first batch's rewards."""

    temperature: Positive = 0.5
    """At the start."""
    cooling: Share = 0.98
    """Factor on the temperature at every episode."""
    step: Positive = 0.25
    """Standard deviation of a move, in the unit of the action (continuous)."""
    moved: Share = 0.25
    """Fraction of the decisions that a move changes, at least one."""
    initial_action: Probability = 0.7
    """Where it starts (continuous; binary: the chance of True)."""


class Annealing:
    """Moves from the current action; takes a worse one with the chance of Metropolis.

    The energy is minus the reward and is that of the current action, not of the best. The moves of
    one batch start from the same action and are taken or left one after the other.
    """

    def __init__(
        self, action_kind: ActionKind, settings: AnnealingSettings | None = None, seed: int = 0
    ) -> None:
        self.action_kind, self.settings = action_kind, settings or AnnealingSettings()
        self.generator = torch.Generator().manual_seed(seed)  # of taking worse actions
        self.current: Tensor | None = None
        self.best: Tensor | None = None
        self.reward, self.best_reward = -math.inf, -math.inf
        self.unit, self.temperature = 0.0, self.settings.temperature

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Move from the current action; greedy: repeat the best one."""
        decisions = []
        for place, seen in enumerate(observations):
            if greedy:
                start = torch.full((seen.decision_index.numel(),), self.settings.initial_action)
                vector = start if self.best is None else self.best
            elif self.current is None:
                vector = self._first(seen, generator, alone=place == 0)
            else:
                vector = self._move(self.current, seen, generator)
            require_size(vector, seen, "annealing")
            decisions.append(Decision(as_action(self.action_kind, vector, seen), raw=vector))
        return decisions

    def _first(self, seen: Data, generator: torch.Generator, alone: bool) -> Tensor:
        """Where to start: one episode at `initial_action`, the others one move away."""
        start = torch.full((seen.decision_index.numel(),), self.settings.initial_action)
        if self.action_kind == "categorical":
            return random_vector(seen, generator)
        if self.action_kind == "binary":
            return (random_vector(seen, generator) < start).float()
        return start if alone else self._move(start, seen, generator)

    def _move(self, origin: Tensor, seen: Data, generator: torch.Generator) -> Tensor:
        require_size(origin, seen, "annealing")
        size = len(origin)
        if self.action_kind == "categorical":
            return random_vector(seen, generator)
        free = allowed(seen).nonzero().squeeze(1) if self.action_kind == "binary" else None
        among = torch.arange(size) if free is None else free
        count = max(1, round(self.settings.moved * len(among)))
        chosen = among[torch.randperm(len(among), generator=generator)[:count]]
        moved = origin.clone()
        if self.action_kind == "binary":
            flips = torch.randint(1, count + 1, (), generator=generator)  # from one to all of them
            moved[chosen[:flips]] = 1 - moved[chosen[:flips]]
            return moved
        noise = torch.randn(len(chosen), generator=generator) * self.settings.step
        moved[chosen] = reflected(moved[chosen] + noise)
        return moved

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Take or leave the moves, cool down."""
        steps = require_single_steps(rollout, "annealing")
        rewards = torch.tensor([step.reward for step in steps], dtype=torch.float64)
        if self.unit == 0.0:
            self.unit = float(rewards.std(correction=0))
        taken = 0
        for step in steps:
            assert step.decision.raw is not None
            gain = step.reward - self.reward
            heat = self.temperature * self.unit
            chance = torch.rand((), generator=self.generator, dtype=torch.float64)
            if gain >= 0 or (heat > 0 and float(chance) < math.exp(gain / heat)):
                self.current, self.reward = step.decision.raw, step.reward
                taken += 1
            if step.reward > self.best_reward:
                self.best, self.best_reward = step.decision.raw, step.reward
            self.temperature *= self.settings.cooling
        return {"accepted": taken / len(steps), "temperature": self.temperature * self.unit}

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, the best so far, temperature and random numbers."""
        names = ("current", "best", "reward", "best_reward", "unit", "temperature")
        kept = {name: getattr(self, name) for name in names}
        return {**kept, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        state = dict(state)
        self.generator.set_state(state.pop("generator"))
        vars(self).update(state)


def reflected(values: Tensor) -> Tensor:
    """Fold values back into [0, 1] at its ends, so that moves stay symmetrical."""
    return 1 - (values.remainder(2) - 1).abs()


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Annealing:
    """Return the agent with these parameters."""
    (own,) = split(parameters, AnnealingSettings)
    return Annealing(spec.action_kind, own, seed)
