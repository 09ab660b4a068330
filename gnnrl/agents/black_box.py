"""Agents that search one action itself, by asking for vectors and telling their rewards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action
from gnnrl.agents.saved import Saved
from gnnrl.rl.observation import ActionKind
from gnnrl.rl.rollout import Decision, Rollout, require_single_steps


class BlackBox(Saved, ABC):
    """Keeps the best vector; a subclass says which are tried (`ask`) and learns from each (`tell`).

    A vector [A] stands for one action on the graph that is searched: see `as_action`.
    """

    name: ClassVar[str]  # of the agent, in messages

    def __init__(self, action_kind: ActionKind) -> None:
        self.action_kind = action_kind
        self.best: Tensor | None = None
        self.best_reward = -math.inf

    @abstractmethod
    def start(self, observation: Data) -> Tensor:
        """Return the vector of the greedy decision before anything is known."""

    @abstractmethod
    def ask(self, observations: Sequence[Data], generator: torch.Generator) -> list[Tensor]:
        """Return the next vector to try for each observation."""

    @abstractmethod
    def tell(self, vector: Tensor, reward: float) -> None:
        """Learn the reward of a vector; `best` does not count it yet."""

    def figures(self) -> dict[str, float]:
        """Return figures for the history."""
        return {}

    def read(self, vector: Tensor, observation: Data) -> Any:
        """Return the action that a vector stands for."""
        return as_action(self.action_kind, vector, observation)

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Try the next vectors; greedy: repeat the best one. `ValueError` on another graph size."""
        if greedy:
            vectors = [self.start(o) if self.best is None else self.best for o in observations]
        else:
            vectors = self.ask(observations, generator)
        for vector, seen in zip(vectors, observations, strict=True):
            self.require_size(vector, seen)
        pairs = zip(vectors, observations, strict=True)
        return [Decision(self.read(vector, seen), raw=vector) for vector, seen in pairs]

    def require_size(self, vector: Tensor, observation: Data) -> None:
        """Refuse another graph than the one that the action was searched for."""
        size = observation.decision_index.numel()
        if len(vector) != size:
            raise ValueError(
                f"{self.name} searches one action of {len(vector)} decisions, got a graph of "
                f"{size} (use an agent with a policy, such as ppo, where graphs differ in size)"
            )

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learn the rewards one after the other and keep the best vector."""
        for step in require_single_steps(rollout, self.name):
            assert step.decision.raw is not None
            self.tell(step.decision.raw, step.reward)
            if step.reward > self.best_reward:
                self.best, self.best_reward = step.decision.raw, step.reward
        return self.figures()


def moved(origin: Tensor, fraction: float, step: float, generator: torch.Generator) -> Tensor:
    """Add normal noise of deviation `step` to a fraction of the entries [A], at least one.

    Results are folded back into [0, 1].
    """
    count = max(1, round(fraction * len(origin)))
    chosen = torch.randperm(len(origin), generator=generator)[:count]
    noise = torch.randn(count, generator=generator) * step
    result = origin.clone()
    result[chosen] = reflected(result[chosen] + noise)
    return result


def reflected(values: Tensor) -> Tensor:
    """Fold values back into [0, 1] at its ends, so that moves stay symmetric."""
    return 1 - (values.remainder(2) - 1).abs()
