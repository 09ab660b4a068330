"""Evolution of one action: covariance matrix adaptation (Hansen 2016), by the library `cma`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cma
import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action, require_size
from gnnrl.agents.settings import split
from gnnrl.rl.observation import ActionKind, ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout, require_single_steps
from gnnrl.settings import CountOrNone, Positive, Probability, Settings, Switch


class EvolutionSettings(Settings):
    """What CMA-ES is given; the coordinates are the decisions, in [0, 1]."""

    initial_action: Probability = 0.7
    """Mean of the first generation."""
    sigma: Positive = 0.2
    """Spread of the first generation."""
    popsize: CountOrNone = 0
    """Actions of a generation, at least 2; 0: 4 + 3 ln(decisions), the library's choice."""
    diagonal: Switch = True
    """A diagonal covariance, which few evaluations can still estimate."""

    @field_validator("popsize")
    @classmethod
    def _more_than_one(cls, popsize: int) -> int:
        if popsize == 1:
            raise ValueError("must be 0 or at least 2, got 1")
        return popsize


class Evolution:
    """Asks CMA-ES for actions and tells it their rewards, whatever the size of a batch.

    What is kept of it is what it was asked and told: asked and told the same, a new strategy comes
    to the same state.
    """

    def __init__(
        self, action_kind: ActionKind, settings: EvolutionSettings | None = None, seed: int = 0
    ) -> None:
        self.action_kind, self.seed = action_kind, seed
        self.settings = settings or EvolutionSettings()
        self.decisions = 0  # of the graph, once it has been seen
        self.asked: list[list[int]] = [[]]  # how many actions, between two tellings
        self.told: list[tuple[Tensor, list[float]]] = []  # actions [k, decisions], their rewards
        self.waiting: tuple[list[Tensor], list[float]] = ([], [])  # too few to be told yet
        self.best: tuple[Tensor, float] | None = None
        self._strategy: cma.CMAEvolutionStrategy | None = None

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Take the next actions of the strategy; greedy: the best one it was told of."""
        if not self.decisions:
            self.decisions = observations[0].decision_index.numel()
        if greedy:
            start = torch.full((self.decisions,), self.settings.initial_action)
            vectors = [self.best[0] if self.best else start.double()] * len(observations)
        else:
            self.asked[-1].append(len(observations))
            vectors = [torch.from_numpy(v) for v in self._ask(len(observations))]
        decisions = []
        for vector, seen in zip(vectors, observations, strict=True):
            require_size(vector[: self.decisions], seen, "evolution")
            action = as_action(self.action_kind, vector[: self.decisions], seen)
            decisions.append(Decision(action, raw=vector))
        return decisions

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Tell the strategy, as soon as a generation is complete."""
        vectors, rewards = self.waiting
        for step in require_single_steps(rollout, "evolution"):
            assert step.decision.raw is not None
            vectors.append(step.decision.raw)
            rewards.append(step.reward)
            if self.best is None or step.reward > self.best[1]:
                self.best = step.decision.raw, step.reward
        strategy = self._started()
        if len(vectors) >= strategy.popsize:
            self.told.append((torch.stack(vectors), rewards))
            self.asked.append([])
            self.waiting = ([], [])
            self._tell(*self.told[-1])
        return {"sigma": float(strategy.sigma)}

    def _started(self) -> cma.CMAEvolutionStrategy:
        if self._strategy is None:
            normal = np.random.default_rng(self.seed).standard_normal
            options = {"bounds": [0, 1], "CMA_diagonal": self.settings.diagonal, "verbose": -9,
                       "seed": np.nan, "randn": lambda *shape: normal(shape)}  # fmt: skip
            if self.settings.popsize:
                options["popsize"] = self.settings.popsize
            start = np.full(max(self.decisions, 2), self.settings.initial_action)
            self._strategy = cma.CMAEvolutionStrategy(start, self.settings.sigma, options)
        return self._strategy

    def _ask(self, number: int) -> list[np.ndarray]:
        return self._started().ask(number=number)

    def _tell(self, vectors: Tensor, rewards: Sequence[float]) -> None:
        self._started().tell(list(vectors.numpy()), [-reward for reward in rewards])

    def state_dict(self) -> dict[str, Any]:
        """Return what was asked and told."""
        names = ("decisions", "asked", "told", "waiting", "best")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ask and tell the same again."""
        vars(self).update(state)
        self._strategy = None
        for generation, numbers in enumerate(self.asked):
            for number in numbers:
                self._ask(number)
            if generation < len(self.told):
                self._tell(*self.told[generation])


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Evolution:
    """Return the agent with these parameters."""
    (own,) = split(parameters, EvolutionSettings)
    return Evolution(spec.action_kind, own, seed)
