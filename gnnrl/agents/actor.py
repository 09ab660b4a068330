"""Agents with a policy: what they act with, and one step of learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnnrl.agents.saved import Saved
from gnnrl.errors import UserError
from gnnrl.rl.distributions import distribution
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.policy import build_policy, embeddings
from gnnrl.rl.rollout import Decision
from gnnrl.rl.settings import EncoderSettings

Built = TypeVar("Built")


def seeded(build: Callable[[], Built], seed: int) -> Built:
    """Build something with random weights; the global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def freeze(policy: nn.Module) -> None:
    """Freeze what reads graphs in a policy: encoders, but not decoders and other heads.

    Raises `UserError` where a policy has no encoder of ours.
    """
    parts = embeddings(policy)
    if not parts:
        raise UserError(
            f"freeze_encoder: {type(policy).__name__} holds no gnnrl.rl.policy.Embeddings, whose "
            "encoder could be frozen; set it to false"
        )
    for embed in parts:
        for weights in embed.of_graphs().values():
            weights.requires_grad_(False)


class PolicyAgent(Saved):
    """An agent with a policy and one optimiser of it.

    settings: those of the agent, with learning_rate, max_grad_norm and freeze_encoder.
    """

    STATE: ClassVar[tuple[str, ...]] = ("policy", "optimizer")

    def __init__(
        self,
        spec: ObservationSpec,
        settings: Any,
        encoder: EncoderSettings | None,
        seed: int,
        bias: Tensor,
        **adam: Any,
    ) -> None:
        """bias: what the parameters of every decision's distribution start near.

        adam: options of the optimiser besides the learning rate.
        """
        self.settings = settings
        self.policy = seeded(lambda: build_policy(spec, encoder or EncoderSettings(), bias), seed)
        if settings.freeze_encoder:
            freeze(self.policy)
        self.learned = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.learned, lr=settings.learning_rate, **adam)

    def descend(self, loss: Tensor) -> None:
        """Take one step down the gradient of the loss, clipped to `max_grad_norm`."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learned, self.settings.max_grad_norm)
        self.optimizer.step()


class Actor(PolicyAgent):
    """Acts by sampling from the policy, or by its most likely action.

    settings: also with initial_action and initial_std, the distribution of the first actions.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        settings: Any,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
        **adam: Any,
    ) -> None:
        self.distribution = distribution(spec.action_kind, settings.initial_std)
        bias = self.distribution.bias(settings.initial_action)
        super().__init__(spec, settings, encoder, seed, bias, **adam)

    @torch.no_grad()
    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide on each observation; `value` as the critic gives it."""
        output = self.policy(observations)
        how = self.distribution
        raw = how.mode(output) if greedy else how.sample(output, generator)
        drawn = zip(
            how.split(output, raw),
            how.split(output, how.log_prob(output, raw)),
            output.values.tolist(),
            strict=True,
        )
        return [Decision(how.action(r), r.clone(), p.clone(), value) for r, p, value in drawn]

    @torch.no_grad()
    def values(self, observations: Sequence[Data]) -> list[float]:
        """Return the critic's value of each observation."""
        return self.policy(observations).values.tolist()

    def expected(self, observations: Sequence[Data]) -> list[Tensor]:
        """Return the mean action and mean square of every decision, [A, 2] per observation."""
        output = self.policy(observations)
        return list(self.distribution.expected(output).split(output.sizes))
