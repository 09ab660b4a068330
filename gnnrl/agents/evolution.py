"""Evolution of one action: covariance matrix adaptation (Hansen 2016), by the library `cma`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.black_box import BlackBox
from gnnrl.agents.settings import EvolutionSettings, split
from gnnrl.rl.observation import ActionKind, ObservationSpec

if TYPE_CHECKING:
    import cma


class Evolution(BlackBox):
    """Asks CMA-ES for actions and tells it their rewards, whatever the size of a batch.

    Its state is what it was asked and told: a new strategy that is asked and told the same reaches
    the same state.
    """

    name = "evolution"
    STATE = ("decisions", "asked", "told", "waiting", "best", "best_reward")

    def __init__(
        self, action_kind: ActionKind, settings: EvolutionSettings | None = None, seed: int = 0
    ) -> None:
        super().__init__(action_kind)
        self.seed, self.settings = seed, settings or EvolutionSettings()
        self.decisions = 0  # of the graph, once it has been seen
        self.asked: list[list[int]] = [[]]  # how many vectors, between two tellings
        self.told: list[tuple[Tensor, list[float]]] = []  # vectors [k, A], their rewards
        self.waiting: tuple[list[Tensor], list[float]] = ([], [])  # not a generation yet
        self._strategy: cma.CMAEvolutionStrategy | None = None

    def start(self, observation: Data) -> Tensor:
        """Return `initial_action` for every decision."""
        size = self._vector_size(observation)
        return torch.full((size,), self.settings.initial_action).double()

    def ask(self, observations: Sequence[Data], generator: torch.Generator) -> list[Tensor]:
        """Return the next vectors of the strategy; the generator is not used."""
        self._vector_size(observations[0])
        self.asked[-1].append(len(observations))
        return [torch.from_numpy(v) for v in self.strategy.ask(number=len(observations))]

    def _vector_size(self, observation: Data) -> int:
        """The library needs two coordinates at least: with one decision, the second is unused."""
        self.decisions = self.decisions or observation.decision_index.numel()
        return max(self.decisions, 2)

    def require_size(self, vector: Tensor, observation: Data) -> None:
        """Refuse another graph than the one that the action was searched for."""
        super().require_size(vector[: self.decisions], observation)

    def read(self, vector: Tensor, observation: Data) -> Any:
        """Return the action of the coordinates in use."""
        return super().read(vector[: self.decisions], observation)

    def tell(self, vector: Tensor, reward: float) -> None:
        """Collect the vector for the next generation."""
        self.waiting[0].append(vector)
        self.waiting[1].append(reward)

    def figures(self) -> dict[str, float]:
        """Tell the strategy a generation that is complete; return its spread."""
        vectors, rewards = self.waiting
        if len(vectors) >= self.strategy.popsize:
            self.told.append((torch.stack(vectors), rewards))
            self.asked.append([])
            self.waiting = ([], [])
            self._tell(*self.told[-1])
        return {"sigma": float(self.strategy.sigma)}

    @property
    def strategy(self) -> cma.CMAEvolutionStrategy:
        """The library's strategy, made when the size of the graph is known."""
        if self._strategy is None:
            import cma  # a second of scipy, which only this agent needs

            normal = np.random.default_rng(self.seed).standard_normal
            options = {"bounds": [0, 1], "CMA_diagonal": self.settings.diagonal, "verbose": -9,
                       "seed": np.nan, "randn": lambda *shape: normal(shape)}  # fmt: skip
            if self.settings.popsize:
                options["popsize"] = self.settings.popsize
            start = np.full(max(self.decisions, 2), self.settings.initial_action)
            self._strategy = cma.CMAEvolutionStrategy(start, self.settings.sigma, options)
        return self._strategy

    def _tell(self, vectors: Tensor, rewards: Sequence[float]) -> None:
        self.strategy.tell(list(vectors.numpy()), [-reward for reward in rewards])

    def _load(self, state: dict[str, Any]) -> None:
        """Ask and tell the same again."""
        super()._load(state)
        self._strategy = None
        for generation, numbers in enumerate(self.asked):
            for number in numbers:
                self.strategy.ask(number=number)
            if generation < len(self.told):
                self._tell(*self.told[generation])


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Evolution:
    """Return the agent with these parameters."""
    (own,) = split(parameters, EvolutionSettings)
    return Evolution(spec.action_kind, own, seed)
