"""Simulated annealing (Kirkpatrick et al. 1983) on subsets, by swaps."""

# A: decisions   n: swaps of one move

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.black_box import BlackBox
from gnnrl.agents.settings import SwapSettings, split
from gnnrl.agents.thompson import Beliefs
from gnnrl.rl import subsets
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.rollout import Rollout

LOSSES = 8  # worse moves seen before the temperature is known


class SwapAnnealing(BlackBox):
    """Swaps some of what is chosen; accepts a worse subset with the probability of Metropolis.

    The energy is minus the reward of the current subset, not a running mean.  The moves of one
    batch start from the same subset and are accepted or rejected one after the other.  Which
    decisions are swapped is drawn from the value estimates of the moves so far (`Beliefs`).
    """

    name = "annealing"
    STATE = ("current", "best", "reward", "best_reward", "heat", "losses", "idle", "restarts",
             "beliefs", "generator")  # fmt: skip

    def __init__(self, settings: SwapSettings | None = None, seed: int = 0) -> None:
        super().__init__("subset")
        self.settings = settings or SwapSettings()
        self.generator = torch.Generator().manual_seed(seed)  # of accepting worse subsets
        self.current: Tensor | None = None  # bool [A]
        self.reward = -math.inf
        self.heat = 1.0  # share of the first temperature
        self.losses: list[float] = []  # of the first worse moves
        self.idle = self.restarts = 0
        self.beliefs = Beliefs()
        self.accepted = 0  # moves of one batch
        self._origin: Tensor | None = None  # where that batch started
        self._before = self.reward

    @property
    def temperature(self) -> float:
        """In the unit of the reward; 0 as long as no move was worse."""
        mean = sum(self.losses) / len(self.losses) if self.losses else 0.0
        return self.heat * mean / -math.log(self.settings.acceptance)

    def start(self, observation: Data) -> Tensor:
        """Return a subset that keeps the minimum of every part, bool [A]."""
        choice = subsets.Choice.of(observation)
        return _chosen(subsets.best(torch.zeros(choice.size), choice), choice)

    def read(self, vector: Tensor, observation: Data) -> Any:
        """Return the subset itself."""
        return vector.numpy().copy()

    def ask(self, observations: Sequence[Data], generator: torch.Generator) -> list[Tensor]:
        """Return subsets some swaps away from the current one, bool [A] each; at first any."""
        return [self._next(seen, generator) for seen in observations]

    def _next(self, seen: Data, generator: torch.Generator) -> Tensor:
        choice = subsets.Choice.of(seen)
        if self.current is None:
            order = subsets.draw(torch.zeros(choice.size), choice, generator)
            return _chosen(order, choice)
        self.require_size(self.current, seen)
        return self._move(self.current, choice, generator)

    def _move(self, origin: Tensor, choice: subsets.Choice, generator: torch.Generator) -> Tensor:
        """Swap decisions of low for decisions of high value, as drawn from the beliefs."""
        most = min(choice.keep, choice.size - choice.keep)
        count = min(most, max(1, round(self.settings.moved * most * self.heat)))
        if count == 0:  # there is only one subset
            return origin
        learned = self.settings.learned
        keys = self.beliefs.draw(choice.size, generator) if learned else _noise(choice, generator)
        removed = torch.where(origin, -keys, -torch.inf).topk(count).indices
        added = torch.where(origin, -torch.inf, keys).topk(count).indices
        if learned:
            count = max(1, int((keys[added] > keys[removed]).sum()))
        swapped = origin.clone()
        swapped[removed[:count]], swapped[added[:count]] = False, True
        return _mended(swapped, keys, choice)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Accept or reject the moves, cool down; return to the best where nothing improves."""
        self._origin, self._before, self.accepted = self.current, self.reward, 0
        super().learn(rollout)
        return {
            "accepted": self.accepted / len(rollout.episodes),
            "temperature": self.temperature,
        }

    def tell(self, vector: Tensor, reward: float) -> None:
        """Update the beliefs, accept or reject the subset, cool down."""
        if self._origin is not None:
            self.beliefs.learn(self._origin, vector, reward - self._before)
        loss = self.reward - reward
        if 0 < loss < math.inf and len(self.losses) < LOSSES:
            self.losses.append(loss)
        if self._accepts(loss):
            self.current, self.reward = vector, reward
            self.accepted += 1
        self._cool(vector, reward)

    def _accepts(self, loss: float) -> bool:
        chance = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        return loss <= 0 or (self.temperature > 0 and chance < math.exp(-loss / self.temperature))

    def _cool(self, chosen: Tensor, reward: float) -> None:
        """Cool down; after `patience` episodes without a better subset return to the best."""
        self.heat *= self.settings.cooling
        self.idle += 1
        if reward > self.best_reward:
            self.best, self.best_reward, self.idle = chosen, reward, 0
        if self.idle >= self.settings.patience:
            self.current, self.reward, self.idle = self.best, self.best_reward, 0
            self.heat, self.restarts = max(self.heat, self.settings.reheat), self.restarts + 1


def _chosen(order: Tensor, choice: subsets.Choice) -> Tensor:
    return torch.from_numpy(subsets.as_mask(order, choice.size))


def _noise(choice: subsets.Choice, generator: torch.Generator) -> Tensor:
    return torch.rand(choice.size, generator=generator, dtype=torch.float64)


def _mended(chosen: Tensor, keys: Tensor, choice: subsets.Choice) -> Tensor:
    """Return the nearest subset that keeps the minimum of every part."""
    span = float(keys.max() - keys.min()) + 1.0
    order = subsets.best(torch.where(chosen, keys + span, keys), choice)
    return torch.zeros_like(chosen).index_fill(0, order, True)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> SwapAnnealing:
    """Return the agent with these parameters."""
    (own,) = split(parameters, SwapSettings)
    return SwapAnnealing(own, seed)
