"""What a batch of episodes is made of, and the advantage of what was decided in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data


@dataclass(frozen=True)
class Decision:
    """What an agent decided on one observation.

    action: what the environment's `step` takes.
    raw: what the agent needs to compute `log_prob` again (such as the value before squashing).
    log_prob: one entry per decision, or one in all where one node was chosen.
    value: the return the agent expected.
    """

    action: np.ndarray | int
    raw: Tensor | None = None
    log_prob: Tensor | None = None
    value: float = 0.0


@dataclass(frozen=True)
class Transition:
    """One step. credit [A]: the reward as each decision deserves it, where the env knows."""

    observation: Data
    decision: Decision
    reward: float
    credit: np.ndarray | None = None


@dataclass(frozen=True)
class Episode:
    """The steps of one episode.

    seed: what the environment was reset with; equal seeds start equal episodes.
    final: the last observation where the episode was truncated, None where it truly ended.
    info: what the environment said at the end (`plan` and others).
    """

    transitions: tuple[Transition, ...]
    seed: int = 0
    final: Data | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.transitions:
            raise ValueError("an episode needs at least one transition, got none")

    @property
    def reward(self) -> float:
        """The sum of the rewards."""
        return sum(transition.reward for transition in self.transitions)


@dataclass(frozen=True)
class Rollout:
    """The episodes an agent learns from at once, and the best one of the search so far."""

    episodes: tuple[Episode, ...]
    best: Episode | None = None

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ValueError("a rollout needs at least one episode, got none")

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """All transitions, episode after episode."""
        return tuple(step for episode in self.episodes for step in episode.transitions)


def generalized_advantages(
    rewards: Tensor, values: Tensor, dones: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, Eq. 16), shape [steps].

    rewards: [steps].  dones: [steps], 1.0 where the episode ended at that step.
    values: [steps + 1], the last one the bootstrap.
    """
    deltas = rewards + gamma * values[1:] * (1 - dones) - values[:-1]
    advantages = torch.zeros_like(rewards)
    following = torch.zeros((), dtype=rewards.dtype)
    for step in range(len(rewards) - 1, -1, -1):
        following = deltas[step] + gamma * gae_lambda * (1 - dones[step]) * following
        advantages[step] = following
    return advantages


def episode_advantages(
    episode: Episode, bootstrap: float, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalized advantages of one episode, [steps], float64.

    bootstrap: the value of `episode.final`, unused where the episode truly ended.
    """
    steps = episode.transitions
    rewards = torch.tensor([step.reward for step in steps], dtype=torch.float64)
    values = torch.tensor([*(s.decision.value for s in steps), bootstrap], dtype=torch.float64)
    dones = torch.zeros(len(steps), dtype=torch.float64)
    dones[-1] = float(episode.final is None)
    return generalized_advantages(rewards, values, dones, gamma, gae_lambda)


def decision_advantages(transition: Transition, advantage: Tensor) -> Tensor:
    """Advantage of every decision of one step, in the shape of its `log_prob`.

    Without credit all share the advantage of the step. With it, the reward of this step is
    replaced by what each decision deserves of it; what follows stays shared.
    """
    assert transition.decision.log_prob is not None
    shared = advantage.expand(transition.decision.log_prob.shape)
    if transition.credit is None:
        return shared
    if np.shape(transition.credit) != tuple(shared.shape):
        raise ValueError(
            f"credit of shape {np.shape(transition.credit)}, expected {tuple(shared.shape)}: "
            "one entry per decision"
        )
    return shared + torch.as_tensor(transition.credit, dtype=shared.dtype) - transition.reward


def require_single_steps(rollout: Rollout, agent: str) -> Sequence[Transition]:
    """Return the one transition of every episode, for agents that search one action."""
    for episode in rollout.episodes:
        if len(episode.transitions) != 1:
            raise ValueError(
                f"{agent} searches one action per episode, got an episode of "
                f"{len(episode.transitions)} steps (use a single-step environment or another agent)"
            )
    return rollout.transitions
