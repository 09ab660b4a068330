"""Keep what scores highest: the criteria of pruning before training, and their control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.settings import split
from gnnrl.errors import UserError
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout
from gnnrl.rl.subsets import Choice, as_mask, best
from gnnrl.settings import Settings, Switch


class RankingSettings(Settings):
    """How filters are chosen by their importance."""

    shuffled: Switch = False
    """as many of each part as the scores say, but which of them is left to chance"""


class Ranking:
    """Chooses the decisions of the highest `score`, as many as are asked for, always the same.

    shuffled: as many of each part are chosen as the scores say, but which of them is left to chance
    (the control of Frankle et al. 2021).
    """

    def __init__(self, shuffled: bool = False, seed: int = 0) -> None:
        self.shuffled, self.seed = shuffled, seed

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Rank and choose."""
        return [Decision(self._choose(seen)) for seen in observations]

    def _choose(self, seen: Data) -> Any:
        score = seen.get("score")
        if score is None:
            raise UserError("the observation has no score to rank decisions by; take random")
        order = best(score, Choice.of(seen))
        if self.shuffled:
            order = _elsewhere(order, seen.part, torch.Generator().manual_seed(self.seed))
        return as_mask(order, len(score))

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learn nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def _elsewhere(order: Tensor, part: Tensor, generator: torch.Generator) -> Tensor:
    """As many decisions of every part as are chosen, but any."""
    counts = torch.bincount(part[order])
    chosen = []
    for number, count in enumerate(counts.tolist()):
        members = (part == number).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Ranking:
    """Return the agent; its parameters are the fields of `RankingSettings`."""
    (own,) = split(parameters, RankingSettings)
    return Ranking(own.shuffled, seed)
