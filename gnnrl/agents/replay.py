"""A replay buffer of transitions on graphs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.rl.observation import distinct, to_tensors
from gnnrl.rl.rollout import Episode


@dataclass(frozen=True)
class Stored:
    """One transition. action [A].  following: the observation after it, None at the end."""

    observation: Data
    action: Tensor
    reward: float
    following: Data | None


class Replay:
    """The last `size` transitions; equal observations are held once."""

    def __init__(self, size: int) -> None:
        self.transitions: deque[Stored] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self.transitions)

    def add(self, episodes: Sequence[Episode]) -> None:
        """Take in the steps of episodes."""
        for episode in episodes:
            steps = episode.transitions
            after = [*(step.observation for step in steps[1:]), episode.final]
            for step, following in zip(steps, after, strict=True):
                action = torch.as_tensor(step.decision.action, dtype=torch.float32)
                self.transitions.append(Stored(step.observation, action, step.reward, following))
        self._share()

    def _share(self) -> None:
        """Let equal observations be one object, so that they are compared and encoded once."""
        seen = [kept.observation for kept in self.transitions]
        after = [kept.following for kept in self.transitions if kept.following is not None]
        graphs, place = distinct([*seen, *after])
        one = {
            id(given): graphs[which] for given, which in zip([*seen, *after], place, strict=True)
        }
        for index, kept in enumerate(self.transitions):
            following = None if kept.following is None else one[id(kept.following)]
            first = one[id(kept.observation)]
            self.transitions[index] = Stored(first, kept.action, kept.reward, following)

    def sample(self, number: int, generator: torch.Generator) -> list[Stored]:
        """Draw transitions with replacement."""
        places = torch.randint(len(self), (number,), generator=generator)
        return [self.transitions[place] for place in places]

    def state_dict(self) -> dict[str, Any]:
        """Return the different observations once and the transitions by their place in them."""
        pairs = [(kept.observation, kept.following) for kept in self.transitions]
        given = [seen for pair in pairs for seen in pair if seen is not None]
        graphs, place = distinct(given) if given else ([], torch.zeros(0, dtype=torch.long))
        numbers = iter(place.tolist())
        rows = []
        for kept in self.transitions:
            first = next(numbers)
            following = -1 if kept.following is None else next(numbers)
            rows.append([first, kept.action, kept.reward, following])
        return {"graphs": [to_tensors(graph) for graph in graphs], "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        graphs = [Data(**tensors) for tensors in state["graphs"]]
        self.transitions.clear()
        for first, action, reward, following in state["rows"]:
            after = None if following < 0 else graphs[following]
            self.transitions.append(Stored(graphs[first], action, reward, after))
