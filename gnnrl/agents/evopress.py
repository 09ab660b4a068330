"""Evolution by level switches between decisions, as in EvoPress (Sieberling et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.black_box import BlackBox
from gnnrl.agents.sensitivity import require_continuous
from gnnrl.agents.settings import EvoPressSettings, split
from gnnrl.rl.observation import ObservationSpec


class EvoPress(BlackBox):
    """Raises one decision and lowers another; the best of parent and offspring is the next parent.

    Successive halving of a generation is the evaluator's: with `search.reward.race` the offspring
    pass few images first, and only those that are not clearly worse pass all of them.
    """

    name = "evopress"
    STATE = ("best", "best_reward")

    def __init__(self, settings: EvoPressSettings | None = None) -> None:
        super().__init__("continuous")
        self.settings = settings or EvoPressSettings()

    def start(self, observation: Data) -> Tensor:
        """Return the first parent."""
        return torch.full((observation.decision_index.numel(),), self.settings.initial_action)

    def ask(self, observations: Sequence[Data], generator: torch.Generator) -> list[Tensor]:
        """Return offspring of the best vector; the first parent is tried itself."""
        parents = [self.start(seen) if self.best is None else self.best for seen in observations]
        alone = 1 if self.best is None else 0
        offspring = [self.switched(parent, generator) for parent in parents[alone:]]
        return [*parents[:alone], *offspring]

    def switched(self, parent: Tensor, generator: torch.Generator) -> Tensor:
        """Return an offspring; the smaller of two draws is how many switches it has."""
        changed, most = parent.clone(), self.settings.switches
        for _ in range(int(torch.randint(1, most + 1, (2,), generator=generator).min())):
            pair = torch.randperm(len(parent), generator=generator)[:2]
            amount = self.settings.step * torch.rand((), generator=generator)
            changed[pair[0]] += amount
            changed[pair[1:]] -= amount
        return changed.clamp(0.0, 1.0)

    def tell(self, vector: Tensor, reward: float) -> None:
        """Learn nothing but the best."""

    def figures(self) -> dict[str, float]:
        """Return the reward of the next parent."""
        return {"parent": self.best_reward}


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> EvoPress:
    """Return the agent with these parameters."""
    (own,) = split(parameters, EvoPressSettings)
    require_continuous(spec.action_kind, "evopress")
    return EvoPress(own)
