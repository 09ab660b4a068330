"""REINFORCE (Williams 1992) with the other episodes of the batch as the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnrl.agents.actor import Actor
from gnnrl.agents.settings import ReinforceSettings, split
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.rollout import Episode, Rollout
from gnnrl.rl.settings import EncoderSettings


class Reinforce(Actor):
    """One gradient step per batch; no critic.

    Baseline: the mean of the other episodes that started from the same seed (Kool et al. 2019,
    leave one out), or of the whole batch where every episode started from another.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        settings: ReinforceSettings | None = None,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, settings or ReinforceSettings(), encoder, seed)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Take one step up the gradient of the expected return."""
        advantages = leave_one_out(rollout.episodes, self.settings.gamma)
        scale = advantages.std(correction=0) + 1e-8
        output = self.policy([step.observation for step in rollout.transitions])
        how = self.distribution
        raw = torch.cat([step.decision.raw for step in rollout.transitions])  # type: ignore[misc]
        log_prob = how.log_prob(output, raw)
        entropy = how.entropy(output).mean()
        gain = (advantages / scale)[how.owner(output)] * log_prob
        loss = -gain.mean() - self.settings.ent_coef * entropy
        self.descend(loss)
        return {"entropy": entropy.item(), "advantage_std": scale.item()}


def discounted_returns(episode: Episode, gamma: float) -> list[float]:
    """Return the discounted sum of rewards from each step on, [steps]."""
    following, returns = 0.0, []
    for step in reversed(episode.transitions):
        following = step.reward + gamma * following
        returns.append(following)
    return returns[::-1]


def leave_one_out(episodes: Sequence[Episode], gamma: float) -> Tensor:
    """Return of every transition minus the mean return of the other episodes at the same step.

    Shape [transitions]. A step that no other episode reached is compared with zero still to come.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for place, episode in enumerate(episodes):
        groups[episode.seed].append(place)
    if all(len(group) == 1 for group in groups.values()):
        groups = {0: list(range(len(episodes)))}
    returns = [discounted_returns(episode, gamma) for episode in episodes]
    advantages: list[Tensor] = [torch.zeros(0)] * len(episodes)
    for group in groups.values():
        longest = max(len(returns[place]) for place in group)
        table = torch.zeros(len(group), longest)  # [episodes of the group, steps]
        for row, place in enumerate(group):
            table[row, : len(returns[place])] = torch.tensor(returns[place])
        others = (table.sum(0) - table) / max(len(group) - 1, 1)
        for row, place in enumerate(group):
            advantages[place] = (table - others)[row, : len(returns[place])]
    return torch.cat(advantages)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Reinforce:
    """Return the agent with these parameters, its own and the encoder's."""
    own, encoder = split(parameters, ReinforceSettings, EncoderSettings)
    return Reinforce(spec, own, encoder, seed)
