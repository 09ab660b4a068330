"""The steps of an episode: from what an agent does in each of them to one whole action."""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch_geometric.data import Data


class PrunesFurther(Protocol):
    """What `Further` asks of a search space."""

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Prune further: the accumulated action after one more."""

    def met(self, keep: np.ndarray) -> bool:
        """Whether the accumulated action meets the budget."""

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the graph of the network pruned so far."""


@runtime_checkable
class DecidedInTurn(Protocol):
    """A space whose decisions can be made one after the other."""

    size: int

    def partly(self, entries: np.ndarray) -> Data:
        """Return the graph when these first entries of an action are decided, the rest whole."""


class Steps(Protocol):
    """An episode in progress."""

    def take(self, action: np.ndarray) -> np.ndarray | None:
        """Take one more step; return the whole action where it was the last one."""

    def observation(self) -> Data:
        """Return what the agent sees before its next step."""


class Further:
    """Every step prunes further, until the budget is met or the steps are used up.

    first: the observation of the whole network.  most: steps; the action of a single one is whole.
    """

    def __init__(self, space: PrunesFurther, first: Data, most: int) -> None:
        self._space, self._first, self._most = space, first, most
        self._keep: np.ndarray | None = None
        self._taken = 0

    def take(self, action: np.ndarray) -> np.ndarray | None:
        """Take one more step; return the whole action where it was the last one."""
        if self._most == 1:
            return action
        self._taken += 1
        self._keep = self._space.step(self._keep, action)
        done = self._taken >= self._most or self._space.met(self._keep)
        return self._keep if done else None

    def observation(self) -> Data:
        """Return the graph of the network pruned so far."""
        return copy.copy(self._first) if not self._taken else self._space.observation(self._keep)


class InTurn:
    """Every step makes one decision, in the order of the network; the graph then shows it."""

    def __init__(self, space: DecidedInTurn, first: Data) -> None:
        self._space, self._first = space, first
        self._taken: list[float] = []

    def take(self, action: np.ndarray) -> np.ndarray | None:
        """Make the next decision; return all of them where it was the last one."""
        self._taken.append(float(action[0]))
        return self._entries if len(self._taken) == self._space.size else None

    def observation(self) -> Data:
        """Return the graph with the next decision alone, and with the actions taken so far."""
        place = len(self._taken)
        seen = copy.copy(self._space.partly(self._entries) if place else self._first)
        every = seen.decision_index
        seen.decision_index = every[place : place + 1]
        seen.decided_index = every[:place]
        seen.decided = torch.tensor(self._taken, dtype=torch.float32)
        return seen

    @property
    def _entries(self) -> np.ndarray:
        return np.array(self._taken, dtype=np.float32)
