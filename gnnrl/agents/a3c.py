"""Asynchronous advantage actor-critic (Mnih et al. 2016) on graphs."""

# P: parameters of the policy that are learned

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.agents.actor import Actor
from gnnrl.agents.buffers import Scale
from gnnrl.agents.reinforce import discounted_returns
from gnnrl.agents.settings import A3CSettings, split
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout, Transition, decision_advantages, episode_advantages
from gnnrl.rl.settings import EncoderSettings


class A3C(Actor):
    """One gradient per worker's episodes, applied to a policy that may have moved on meanwhile.

    A worker acts with a copy of the policy and computes the gradient with the same copy; the mean
    of the gradients that have come is one step of the shared optimiser. Where there are no workers
    `learn` does both, one after the other.
    """

    STATE = ("policy", "optimizer", "scale")

    def __init__(
        self,
        spec: ObservationSpec,
        settings: A3CSettings | None = None,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, settings or A3CSettings(), encoder, seed)
        self.max_staleness = self.settings.max_staleness
        self.scale = Scale()

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Take one step by the gradient of these episodes."""
        return self.apply([self.gradient(rollout)])

    def weights(self) -> dict[str, Any]:
        """Return a copy of the policy's weights and the scale of returns."""
        policy = {name: value.clone() for name, value in self.policy.state_dict().items()}
        return {"policy": policy, "scale": self.scale.state_dict()}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Use the weights of another A3C."""
        self.policy.load_state_dict(weights["policy"])
        self.scale.load_state_dict(weights["scale"])

    def gradient(self, rollout: Rollout) -> dict[str, Any]:
        """Return `gradients [P]`, clipped, and the `returns` they come from; change nothing."""
        scale = copy.deepcopy(self.scale)
        gamma = self.settings.gamma
        returns = [r for e in rollout.episodes for r in discounted_returns(e, gamma)]
        scale.update(returns)
        output = self.policy([step.observation for step in rollout.transitions])
        how = self.distribution
        raw = torch.cat([_raw(step.decision) for step in rollout.transitions])
        advantages = self._advantages(rollout, output.values.detach(), scale)
        policy_loss = -(advantages * how.log_prob(output, raw)).mean()
        normed = torch.tensor([scale.normed(value) for value in returns])
        value_loss = (output.values - normed).square().mean()
        entropy = how.entropy(output).mean()
        loss = policy_loss + self.settings.vf_coef * value_loss - self.settings.ent_coef * entropy
        figures = {"value_loss": value_loss.item(), "entropy": entropy.item()}
        return {"gradients": self._clipped(loss), "returns": returns, "figures": figures}

    def _clipped(self, loss: Tensor) -> list[Tensor]:
        given = torch.autograd.grad(loss, self.learned, allow_unused=True)
        gradients = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.learned, given, strict=True)
        ]
        norm = nn.utils.get_total_norm(gradients)
        factor = (self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        return [g * factor for g in gradients]

    def apply(self, gradients: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Take one step by the mean of these gradients; return their mean figures."""
        for given in gradients:
            self.scale.update(given["returns"])
        by_parameter = zip(*(given["gradients"] for given in gradients), strict=True)
        for parameter, found in zip(self.learned, by_parameter, strict=True):
            parameter.grad = torch.stack(list(found)).mean(0)
        self.optimizer.step()
        names = gradients[0]["figures"]
        return {name: sum(g["figures"][name] for g in gradients) / len(gradients) for name in names}

    def _advantages(self, rollout: Rollout, values: Tensor, scale: Scale) -> Tensor:
        """Return the advantage of every choice in units of the scale."""
        expected = iter(scale.restored(value) for value in values.tolist())
        found: list[Tensor] = []
        for episode in rollout.episodes:
            steps = tuple(_valued(step, next(expected)) for step in episode.transitions)
            after = [] if episode.final is None else self.values([episode.final])
            gae = episode_advantages(
                replace(episode, transitions=steps),
                scale.restored(after[0]) if after else 0.0,
                self.settings.gamma,
                self.settings.gae_lambda,
            )
            found += [decision_advantages(s, a) for s, a in zip(steps, gae, strict=True)]
        return (torch.cat(found) / scale.std).float()


def _raw(decision: Decision) -> Tensor:
    assert decision.raw is not None
    return decision.raw


def _valued(step: Transition, value: float) -> Transition:
    """Return the step with the present value estimate."""
    return replace(step, decision=replace(step.decision, value=value))


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> A3C:
    """Return the agent with these parameters, its own and the encoder's."""
    own, encoder = split(parameters, A3CSettings, EncoderSettings)
    return A3C(spec, own, encoder, seed)
