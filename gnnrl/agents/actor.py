"""A policy with the distribution of its actions: what the learning agents act with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.rl.distributions import distribution
from gnnrl.rl.gnn import EncoderSettings
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.policy import Policy
from gnnrl.rl.rollout import Decision

Built = TypeVar("Built")


def seeded(build: Callable[[], Built], seed: int) -> Built:
    """Build something with random weights; the global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class Actor:
    """Acts by sampling from the policy, or by its most likely action."""

    def __init__(
        self,
        spec: ObservationSpec,
        encoder: EncoderSettings,
        initial_action: float,
        initial_std: float,
        seed: int,
    ) -> None:
        self.spec = spec
        self.distribution = distribution(spec.action_kind, initial_std)
        bias = self.distribution.bias(initial_action)
        self.policy = seeded(lambda: Policy(spec, encoder, bias), seed)

    @torch.no_grad()
    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool
    ) -> list[Decision]:
        """Decide on each observation; `value` as the critic gives it."""
        outlook = self.policy(observations)
        how = self.distribution
        raw = how.mode(outlook) if greedy else how.sample(outlook, generator)
        drawn = zip(
            how.split(outlook, raw),
            how.split(outlook, how.log_prob(outlook, raw)),
            outlook.values.tolist(),
            strict=True,
        )
        return [Decision(how.action(r), r.clone(), p.clone(), value) for r, p, value in drawn]

    @torch.no_grad()
    def values(self, observations: Sequence[Data]) -> list[float]:
        """Return the critic's value of each observation."""
        return self.policy(observations).values.tolist()

    def expected(self, observations: Sequence[Data]) -> list[Tensor]:
        """Return the mean action and mean square of every decision, [A, 2] per observation."""
        outlook = self.policy(observations)
        return list(self.distribution.expected(outlook).split(outlook.sizes))
