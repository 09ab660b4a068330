"""Keep what scores highest: the criteria of pruning before training, and their control."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.saved import Fixed
from gnnrl.agents.settings import RankingSettings, split
from gnnrl.errors import UserError
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.subsets import Choice, as_mask, best


class Ranking(Fixed):
    """Chooses the decisions of the highest `score`, as many as are asked for, always the same.

    shuffled: chooses as many of each part as the scores say, but at random within the part (the
    control of Frankle et al. 2021).
    """

    def __init__(self, shuffled: bool = False, seed: int = 0) -> None:
        self.shuffled, self.seed = shuffled, seed

    def action(self, observation: Data, generator: torch.Generator) -> np.ndarray:
        """Return the subset as a mask, bool [A]; `UserError` if the observation has no score."""
        score = observation.get("score")
        if score is None:
            raise UserError("the observation has no score to rank decisions by; take random")
        order = best(score, Choice.of(observation))
        if self.shuffled:
            order = _elsewhere(order, observation.part, torch.Generator().manual_seed(self.seed))
        return as_mask(order, len(score))


def _elsewhere(order: Tensor, part: Tensor, generator: torch.Generator) -> Tensor:
    """Replace the decisions [K] by random ones, as many of every part."""
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
