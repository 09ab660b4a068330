"""A replay buffer of transitions on graphs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.reinforce import discounted_returns
from gnnrl.rl.env import Action
from gnnrl.rl.observation import digest, to_tensors
from gnnrl.rl.rollout import Episode


@dataclass(frozen=True)
class Stored:
    """One transition. action [A].  following: the observation after it, None at the end."""

    observation: Data
    action: Tensor
    reward: float
    following: Data | None


class Replay:
    """The last `size` transitions; equal observations are one object.

    They are then compared and encoded once.
    """

    def __init__(self, size: int) -> None:
        self.transitions: deque[Stored] = deque(maxlen=size)
        self._known: WeakValueDictionary[str, Data] = WeakValueDictionary()  # by digest

    def __len__(self) -> int:
        return len(self.transitions)

    def add(self, episodes: Sequence[Episode], gamma: float | None = None) -> None:
        """Add the steps of episodes.

        gamma: discount of the returns that stand for rewards, with nothing after them; None: the
        rewards of single steps.
        """
        for episode in episodes:
            steps = episode.transitions
            if gamma is not None and episode.final is None:
                for step, value in zip(steps, discounted_returns(episode, gamma), strict=True):
                    seen, action = self._one(step.observation), _tensor(step.decision.action)
                    self.transitions.append(Stored(seen, action, value, None))
                continue
            every = [self._one(step.observation) for step in steps]
            after = [*every[1:], None if episode.final is None else self._one(episode.final)]
            for step, observation, following in zip(steps, every, after, strict=True):
                action = _tensor(step.decision.action)
                self.transitions.append(Stored(observation, action, step.reward, following))

    def _one(self, observation: Data) -> Data:
        """Return the object that stands for all observations equal to this one."""
        return self._known.setdefault(digest(observation), observation)

    def sample(self, number: int, generator: torch.Generator) -> list[Stored]:
        """Draw transitions with replacement."""
        places = torch.randint(len(self), (number,), generator=generator)
        return [self.transitions[place] for place in places]

    def state_dict(self) -> dict[str, Any]:
        """Return the distinct observations and the transitions, which name them by digest."""
        names = {id(graph): name for name, graph in self._known.items()}
        rows = [
            [names[id(t.observation)], t.action, t.reward, names.get(id(t.following))]
            for t in self.transitions
        ]
        graphs = {name: to_tensors(graph) for name, graph in self._known.items()}
        return {"graphs": graphs, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        graphs = {name: Data(**tensors) for name, tensors in state["graphs"].items()}
        self._known = WeakValueDictionary(graphs)
        self.transitions.clear()
        for first, action, reward, following in state["rows"]:
            after = None if following is None else graphs[following]
            self.transitions.append(Stored(graphs[first], action, reward, after))


def _tensor(action: Action) -> Tensor:
    return torch.as_tensor(action, dtype=torch.float32)
