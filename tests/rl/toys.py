"""Graph tasks whose best decision is known, and a pruning space of a few numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.rl.env import GraphEnv, action_space
from gnnrl.rl.observation import ActionKind


def ring(generator: torch.Generator, size: int, channels: int = 0) -> Data:
    """A ring of nodes with random features, edges both ways; every node is decided."""
    around = torch.arange(size)
    there = torch.stack([around, (around + 1) % size])
    kind = torch.eye(2).repeat_interleave(size, 0)
    data = Data(
        x=torch.rand(size, 3, generator=generator) * 2 - 1,
        edge_index=torch.cat([there, there.flip(0)], dim=1),
        edge_attr=kind,
        decision_index=around,
    )
    if channels:
        data.channel_x = torch.rand(size * channels, 2, generator=generator) * 2 - 1
        data.channel_index = around.repeat_interleave(channels)
    return data


def ask_for_half(seen: Data) -> None:
    """Ask for a subset of half of the nodes, one of each half of them at least."""
    size = seen.x.shape[0]
    seen.keep, seen.least = torch.tensor([max(size // 2, 2)]), torch.tensor([1, 1])
    seen.part = (torch.arange(size) >= size // 2).long()
    seen.score = seen.x[:, 0].clone()


class Target(GraphEnv):
    """Every node has a target that its own features tell, or the mean of its neighbours'.

    continuous: the reward is 1 - 2 * the mean distance to (1 + signal) / 2.
    binary: the fraction of nodes whose decision is whether the signal is positive, less one half,
    doubled. categorical: 1 - how far the chosen signal is below the largest. subset: half of the
    nodes, one of every two halves at least; the mean signal of those less that of the others.
    size: of the ring, or the range sizes are drawn from; static: the same graph in every episode.
    """

    name = "target"

    def __init__(
        self,
        kind: ActionKind,
        size: int | tuple[int, int] = 8,
        neighbours: bool = False,
        static: bool = True,
        steps: int = 1,
    ) -> None:
        self.action_kind, self.neighbours, self.static, self.steps = kind, neighbours, static, steps
        self.sizes = (size, size) if isinstance(size, int) else size
        self.action_space = action_space(kind, self.sizes[0])
        self.left = 0
        self.seen: Data | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = self.steps
        self.seen = self._graph()
        return self.seen, {}

    def _graph(self) -> Data:
        drawn = 0 if self.static else int(self.np_random.integers(2**31))
        generator = torch.Generator().manual_seed(drawn)
        low, high = self.sizes
        seen = ring(generator, int(torch.randint(low, high + 1, (), generator=generator)))
        seen.x[:, 2] = self.left / self.steps  # the value depends on what is still to come
        if self.action_kind == "subset":
            ask_for_half(seen)
        return seen

    def signal(self, seen: Data) -> torch.Tensor:
        """What each node should go by, in [-1, 1]."""
        own = seen.x[:, 0]
        return (own.roll(1) + own.roll(-1)) / 2 if self.neighbours else own

    def step(self, action: Any) -> tuple[Data, float, bool, bool, dict[str, Any]]:
        assert self.seen is not None
        signal = self.signal(self.seen).numpy()
        if self.action_kind == "continuous":
            reward = 1 - 2 * np.abs(action - (1 + signal) / 2).mean()
        elif self.action_kind == "subset":
            reward = signal[action].mean() - signal[~action].mean()
        elif self.action_kind == "binary":
            reward = 2 * (np.asarray(action, bool) == (signal > 0)).mean() - 1
        else:
            reward = 1 - (signal.max() - signal[action])
        self.left -= 1
        self.seen = self._graph() if self.left else self.seen
        return self.seen, float(reward), self.left == 0, False, {}


class Echo(GraphEnv):
    """One decision, which should repeat the action taken before it: 1 - 2 * the distance to it."""

    name = "echo"

    def __init__(self) -> None:
        self.action_space = action_space("continuous", 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        super().reset(seed=seed)
        self.before = float(self.np_random.random())
        seen = ring(torch.Generator().manual_seed(0), 5)
        seen.decision_index, seen.decided_index = torch.tensor([1]), torch.tensor([0])
        seen.decided = torch.tensor([self.before])
        self.seen = seen
        return seen, {}

    def step(self, action: Any) -> tuple[Data, float, bool, bool, dict[str, Any]]:
        return self.seen, 1 - 2 * abs(float(action[0]) - self.before), True, False, {}


@dataclass(frozen=True)
class Plan:
    """A plan of numbers."""

    keep: tuple[float, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self.keep).encode()).hexdigest()[:12]


class Widths:
    """A space like that of channels: keep ratios on a chain, scaled to a mean of `budget`."""

    def __init__(self, size: int = 6, budget: float = 0.5) -> None:
        self.size, self.budget = size, budget
        self.graph = ring(torch.Generator().manual_seed(size), size, channels=5)
        self.best = self.plan(0.2 + 0.6 * (1 + self.graph.x[:, 0].numpy()) / 2)

    def plan(self, action: np.ndarray) -> Plan:
        """Scale to the budget, in hundredths."""
        keep = np.clip(np.asarray(action, float), 0.05, 1)
        low, high = 0.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            over = np.clip(keep * middle, 0.05, 1).mean() > self.budget
            low, high = (low, middle) if over else (middle, high)
        return Plan(tuple(np.round(np.clip(keep * low, 0.05, 1), 2).tolist()))

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        return np.clip((np.ones(self.size) if keep is None else keep) * action, 0.05, 1)

    def met(self, keep: np.ndarray) -> bool:
        return bool(np.mean(keep) <= self.budget)

    def observation(self, keep: np.ndarray | None = None) -> Data:
        seen = self.graph.clone()
        seen.x[:, 2] = torch.as_tensor(np.ones(self.size) if keep is None else keep)
        return seen

    def partly(self, entries: np.ndarray) -> Data:
        return self.observation(np.append(entries, np.ones(self.size - len(entries))))

    def reward(self, plan: Plan) -> float:
        """One less the distance to the best plan."""
        return 1 - 2 * float(np.abs(np.subtract(plan.keep, self.best.keep)).mean())
