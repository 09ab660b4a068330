"""Saving and loading what changes in an agent, and agents in which nothing changes."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch_geometric.data import Data

from gnnrl.errors import UserError
from gnnrl.rl.rollout import Decision, Rollout


class Saved:
    """Saves the attributes that STATE names.

    An attribute may be a module, an optimiser, another `Saved`, a generator of random numbers, a
    tensor, a number, or a container of these.
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the attributes that STATE names: tensors, numbers and containers."""
        return {name: _saved(getattr(self, name)) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`; `UserError` if it is of another version or settings."""
        try:
            self._load(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"the saved state of the agent ({type(self).__name__}) is from another version or "
                "other settings: remove the search's journal to start anew"
            ) from error

    def adopted(self) -> None:
        """Make consistent what depends on the policy, whose weights are now another agent's."""

    def _load(self, state: dict[str, Any]) -> None:
        for name in self.STATE:
            setattr(self, name, _loaded(getattr(self, name), state[name]))


class Fixed(Saved, ABC):
    """An agent that learns nothing. A subclass says in `action` what it decides."""

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide on each observation, one after the other."""
        return [Decision(self.action(seen, generator)) for seen in observations]

    @abstractmethod
    def action(self, observation: Data, generator: torch.Generator) -> Any:
        """Return the action on one observation."""

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learn nothing."""
        return {}


def _saved(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, nn.Parameter):
        return value.detach().clone()
    if hasattr(value, "state_dict"):
        return value.state_dict()
    if isinstance(value, dict):
        return {key: _saved(entry) for key, entry in value.items()}
    return copy.deepcopy(value)


def _loaded(value: Any, state: Any) -> Any:
    """Return the value of an attribute, changed in place where it is an object with a state."""
    if isinstance(value, torch.Generator):
        value.set_state(state)
    elif isinstance(value, nn.Parameter):
        value.data.copy_(state)
    elif hasattr(value, "load_state_dict"):
        value.load_state_dict(state)
    elif isinstance(value, dict) and value.keys() == state.keys():
        return {key: _loaded(entry, state[key]) for key, entry in value.items()}
    else:
        return copy.deepcopy(state)
    return value
