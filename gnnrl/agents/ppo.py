"""Proximal policy optimisation (Schulman et al. 2017) on graphs."""

# B: transitions   n: choices (one per decision; categorical: one per transition)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actor import Actor
from gnnrl.agents.buffers import Elites, Remembered, Scale
from gnnrl.agents.credit import Credit
from gnnrl.agents.settings import PPOSettings, split
from gnnrl.rl.observation import ObservationSpec, distinct
from gnnrl.rl.policy import PolicyOutput
from gnnrl.rl.rollout import Decision, Episode, Rollout, decision_advantages, episode_advantages
from gnnrl.rl.settings import EncoderSettings


@dataclass(frozen=True)
class Sample:
    """One transition to learn from: its choices [n], their old densities and advantages."""

    observation: Data
    raw: Tensor
    log_prob: Tensor
    advantages: Tensor
    return_: float


class PPO(Actor):
    """Clipped surrogate per choice, generalised advantages, imitation of the best episodes.

    Every choice is clipped by itself: an episode decides tens of nodes at once, and the ratio of
    all of them together would leave the clip range after one small step. The best episodes so far
    are imitated where they beat the critic (Oh et al. 2018), which spares evaluations.
    """

    STATE = ("policy", "optimizer", "generator", "scale", "elites", "credit")

    def __init__(
        self,
        spec: ObservationSpec,
        settings: PPOSettings | None = None,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
    ) -> None:
        chosen = settings or PPOSettings()
        super().__init__(spec, chosen, encoder, seed, eps=1e-5, fused=True)
        self.generator = torch.Generator().manual_seed(seed)  # of the minibatches
        self.scale = Scale()
        self.elites = Elites(chosen.elites)
        self.credit = Credit(chosen.credit_decay)
        self.credited = chosen.credit and spec.action_kind != "categorical"

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide on each observation; `value` is the expected return in the unit of rewards."""
        decisions = super().act(observations, generator, greedy)
        return [replace(d, value=self.scale.restored(d.value)) for d in decisions]

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Improve on the episodes; return the figures of the last minibatch."""
        samples = self._samples(rollout)
        elites = self.elites.steps if self.settings.imitation_coef else []
        # one object for equal observations: they are compared by content only once
        steps: list[Sample | Remembered] = [*samples, *elites]
        graphs, place = distinct([step.observation for step in steps])
        seen = [graphs[which] for which in place]
        figures: dict[str, float] = {}
        for epoch in range(self.settings.n_epochs):
            order = torch.randperm(len(samples), generator=self.generator)
            for places in order.split(self.settings.batch_size):
                chosen = [samples[which] for which in places]
                shown = [seen[which] for which in places] + seen[len(samples) :]
                figures = self._update(shown, chosen, elites) | {"epochs": float(epoch + 1)}
                if figures["kl"] > 1.5 * self.settings.target_kl:
                    return figures
        return figures

    def _samples(self, rollout: Rollout) -> list[Sample]:
        samples = []
        for episode, credited in zip(rollout.episodes, self._credited(rollout), strict=True):
            gae = episode_advantages(
                episode, self._bootstrap(episode), self.settings.gamma, self.settings.gae_lambda
            )
            values = torch.tensor([s.decision.value for s in episode.transitions]).double()
            returns = (gae + values).tolist()
            self.scale.update(returns)
            self.elites.offer(episode, returns)
            for step, advantage, value in zip(episode.transitions, gae, returns, strict=True):
                shared = decision_advantages(step, advantage)
                own = shared if credited is None else credited
                chosen = step.decision
                assert chosen.raw is not None and chosen.log_prob is not None
                samples.append(Sample(step.observation, chosen.raw, chosen.log_prob, own, value))
        # one episode alone says nothing about the mean: its advantage is only brought to scale
        return normalised(samples) if len(rollout.episodes) > 1 else normalised(samples, self.scale)

    @torch.no_grad()
    def _credited(self, rollout: Rollout) -> list[Tensor | None]:
        given = any(step.credit is not None for step in rollout.transitions)
        if given or not self.credited:
            return [None] * len(rollout.episodes)
        return self.credit.of(rollout, self.expected)

    def _bootstrap(self, episode: Episode) -> float:
        if episode.final is None:
            return 0.0
        return self.scale.restored(self.values([episode.final])[0])

    def _update(
        self, seen: Sequence[Data], samples: Sequence[Sample], elites: Sequence[Remembered]
    ) -> dict[str, float]:
        """One gradient step. seen: the observations of the samples, then those of the elites."""
        settings = self.settings
        output = self.policy(seen)
        how = self.distribution
        steps: list[Sample | Remembered] = [*samples, *elites]
        raw = torch.cat([step.raw for step in steps])
        log_prob, owner = how.log_prob(output, raw), how.owner(output)
        fresh = owner < len(samples)  # [n + choices of the elites]

        log_ratio = log_prob[fresh] - torch.cat([s.log_prob for s in samples])
        advantages = torch.cat([s.advantages for s in samples])
        surrogate = clipped_surrogate(log_ratio.exp(), advantages, settings.clip_range)
        returns = torch.tensor([self.scale.normed(s.return_) for s in samples])
        value_loss = (output.values[: len(samples)] - returns).square().mean()
        entropy = how.entropy(output)[fresh].mean()
        imitation = self._imitation(output, log_prob[~fresh], owner[~fresh], elites)
        loss = settings.vf_coef * value_loss - surrogate.mean() - settings.ent_coef * entropy
        loss = loss + settings.imitation_coef * imitation
        self.descend(loss)
        return {
            "kl": (log_ratio.exp() - 1 - log_ratio).mean().item(),  # Schulman's k3 estimator
            "entropy": entropy.item(),
            "value_loss": value_loss.item(),
            "surrogate": surrogate.mean().item(),
        }

    def _imitation(
        self, output: PolicyOutput, log_prob: Tensor, owner: Tensor, elites: Sequence[Remembered]
    ) -> Tensor:
        """Negative log-density of the elites, each weighed by how far it beats the critic."""
        if not elites:
            return log_prob.new_zeros(())
        returns = torch.tensor([self.scale.normed(step.return_) for step in elites])
        values = output.values[-len(elites) :].detach()
        weights = (returns - values).clamp(min=0)[owner - (len(output.values) - len(elites))]
        return -(weights * log_prob).mean()


def normalised(samples: Sequence[Sample], scale: Scale | None = None) -> list[Sample]:
    """Bring the advantages of all choices to mean 0 and deviation 1; or only to the scale given."""
    every = torch.cat([sample.advantages for sample in samples])
    mean = every.mean() if scale is None else every.new_zeros(())
    std = every.std(correction=0) + 1e-8 if scale is None else scale.std
    return [
        replace(sample, advantages=((sample.advantages - mean) / std).float()) for sample in samples
    ]


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Return the surrogate objective of each choice (Schulman et al. 2017, Eq. 7)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantages, clipped * advantages)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> PPO:
    """Return the agent with these parameters, its own and the encoder's."""
    own, encoder = split(parameters, PPOSettings, EncoderSettings)
    return PPO(spec, own, encoder, seed)
