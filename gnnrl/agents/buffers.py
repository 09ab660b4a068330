"""What a learning agent keeps between updates: the scale of returns and the best episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.saved import Saved
from gnnrl.rl.observation import to_tensors
from gnnrl.rl.rollout import Episode


class Scale(Saved):
    """Running mean and deviation of the returns, so that no reward needs a unit (Welford)."""

    STATE = ("count", "mean", "squares")

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def update(self, returns: Sequence[float]) -> None:
        """Add returns."""
        for value in returns:
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.squares += delta * (value - self.mean)

    @property
    def std(self) -> float:
        """The standard deviation; 1 as long as all returns were the same."""
        deviation = math.sqrt(self.squares / max(self.count, 1))
        return deviation if deviation > 1e-8 else 1.0

    def normed(self, value: float) -> float:
        """Return a return in units of the scale."""
        return (value - self.mean) / self.std

    def restored(self, normed: float) -> float:
        """Return the return that `normed` stands for."""
        return normed * self.std + self.mean


@dataclass(frozen=True)
class Remembered:
    """One step of an episode to imitate: observation, raw values drawn, return."""

    observation: Data
    raw: Tensor
    return_: float


class Elites:
    """The steps of the best episodes so far; an episode that repeats another is not kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.episodes: list[tuple[float, list[Remembered]]] = []

    @property
    def steps(self) -> list[Remembered]:
        """The steps of all of them, best episode first."""
        return [step for _, steps in self.episodes for step in steps]

    def offer(self, episode: Episode, returns: Sequence[float]) -> None:
        """Keep the episode if it is among the best. returns [steps]: from each step on."""
        steps = [
            Remembered(step.observation, step.decision.raw, value)
            for step, value in zip(episode.transitions, returns, strict=True)
            if step.decision.raw is not None
        ]
        if not any(_same(steps, others) for _, others in self.episodes):
            self.episodes.append((episode.reward, steps))
            self.episodes.sort(key=lambda pair: -pair[0])
            del self.episodes[self.size :]

    def state_dict(self) -> list[Any]:
        """Return all steps as tensors and numbers."""
        return [
            [reward, [[to_tensors(s.observation), s.raw, s.return_] for s in steps]]
            for reward, steps in self.episodes
        ]

    def load_state_dict(self, state: list[Any]) -> None:
        """Continue from `state_dict()`."""
        self.episodes = [
            (reward, [Remembered(Data(**seen), raw, value) for seen, raw, value in steps])
            for reward, steps in state
        ]


def _same(steps: Sequence[Remembered], others: Sequence[Remembered]) -> bool:
    return len(steps) == len(others) and all(
        torch.equal(one.raw, other.raw) for one, other in zip(steps, others, strict=True)
    )
