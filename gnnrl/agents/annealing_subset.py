"""Simulated annealing (Kirkpatrick et al. 1983) on subsets: some of those chosen for others."""

# A: decisions   n: swaps of one move

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import require_size
from gnnrl.agents.settings import split
from gnnrl.agents.thompson import Worth
from gnnrl.rl import subsets
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout, require_single_steps
from gnnrl.settings import Count, Float, Settings, Share, Switch

LOSSES = 8  # worse moves seen before the temperature is known


class SwapSettings(Settings):
    """Annealing on subsets; the first temperature is found from how much moves lose at first."""

    acceptance: Annotated[Float, Field(gt=0, lt=1)] = 0.3
    """Chance of taking a move of average loss, at the start."""
    cooling: Share = 0.995
    """Factor on the temperature, and on the size of swaps, at every episode."""
    moved: Share = 0.25
    """Fraction of what can be exchanged that a move does exchange, at the start."""
    patience: Count = 300
    """Episodes without a better one after which it goes back to the best."""
    reheat: Share = 0.1
    """The temperature it then has, as a fraction of the first."""
    learned: Switch = True
    """Exchange what earlier moves speak for; false: anything."""


@dataclass
class _State:
    """Where the chain is."""

    current: Tensor | None = None  # bool [A]
    best: Tensor | None = None
    reward: float = -math.inf
    best_reward: float = -math.inf
    heat: float = 1.0  # share of the first temperature
    losses: list[float] = field(default_factory=list)  # of the first worse moves
    idle: int = 0
    restarts: int = 0


class SwapAnnealing:
    """Exchanges some of what is chosen; takes a worse subset with the chance of Metropolis.

    The energy is minus the reward and is that of the current subset, not a running mean.  The moves
    of one batch start from the same subset and are taken or left one after the other.  Which
    decisions are exchanged is drawn by what the moves so far tell of their worth (`Worth`).
    """

    def __init__(self, settings: SwapSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or SwapSettings()
        self.generator = torch.Generator().manual_seed(seed)  # of taking worse subsets
        self.state, self.worth = _State(), Worth()

    @property
    def temperature(self) -> float:
        """In the unit of the reward; 0 as long as no move was worse."""
        losses = self.state.losses
        mean = sum(losses) / len(losses) if losses else 0.0
        return self.state.heat * mean / -math.log(self.settings.acceptance)

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Exchange some of the current subset; greedy: repeat the best one."""
        decisions = []
        for seen in observations:
            ask, state = subsets.Choice.of(seen), self.state
            if state.current is None:
                alike = torch.zeros(ask.size)
                order = subsets.best(alike, ask) if greedy else subsets.draw(alike, ask, generator)
                chosen = torch.from_numpy(subsets.as_mask(order, ask.size))
            else:
                require_size(state.current, seen, "annealing")
                chosen = state.best if greedy else self._move(state.current, ask, generator)
            assert chosen is not None
            decisions.append(Decision(chosen.numpy().copy(), raw=chosen))
        return decisions

    def _move(self, origin: Tensor, ask: subsets.Choice, generator: torch.Generator) -> Tensor:
        """Exchange what a draw from the beliefs speaks against for what it speaks for."""
        most = min(ask.keep, ask.size - ask.keep)
        count = min(most, max(1, round(self.settings.moved * most * self.state.heat)))
        if count == 0:  # everything stays, there is one subset
            return origin
        learned = self.settings.learned
        keys = self.worth.draw(ask.size, generator) if learned else _noise(ask.size, generator)
        goes = torch.where(origin, -keys, -torch.inf).topk(count).indices
        comes = torch.where(origin, -torch.inf, keys).topk(count).indices
        if learned:
            count = max(1, int((keys[comes] > keys[goes]).sum()))
        moved = origin.clone()
        moved[goes[:count]], moved[comes[:count]] = False, True
        return _mended(moved, keys, ask)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Take or leave the moves, cool down; go back to the best where nothing gets better."""
        steps, state = require_single_steps(rollout, "annealing"), self.state
        origin, before, taken = state.current, state.reward, 0
        for step in steps:
            chosen = step.decision.raw
            assert chosen is not None
            if origin is not None:
                self.worth.learn(origin, chosen, step.reward - before)
            loss = state.reward - step.reward
            if 0 < loss < math.inf and len(state.losses) < LOSSES:
                state.losses.append(loss)
            if self._accepted(loss):
                state.current, state.reward = chosen, step.reward
                taken += 1
            self._note(chosen, step.reward)
        return {"accepted": taken / len(steps), "temperature": self.temperature}

    def _accepted(self, loss: float) -> bool:
        chance = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        return loss <= 0 or (self.temperature > 0 and chance < math.exp(-loss / self.temperature))

    def _note(self, chosen: Tensor, reward: float) -> None:
        """Remember the best, cool down, start again where it has been the best for too long."""
        state = self.state
        state.heat *= self.settings.cooling
        state.idle += 1
        if reward > state.best_reward:
            state.best, state.best_reward, state.idle = chosen, reward, 0
        if state.idle >= self.settings.patience:
            state.current, state.reward, state.idle = state.best, state.best_reward, 0
            state.heat, state.restarts = max(state.heat, self.settings.reheat), state.restarts + 1

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, what it believes, and random numbers."""
        return {
            **vars(self.state),
            "losses": list(self.state.losses),
            "worth": self.worth.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        state = dict(state)
        self.generator.set_state(state.pop("generator"))
        self.worth.load_state_dict(state.pop("worth"))
        self.state = _State(**{**state, "losses": list(state["losses"])})


def _noise(size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)


def _mended(chosen: Tensor, keys: Tensor, ask: subsets.Choice) -> Tensor:
    """The subset nearest to this one that leaves every part its least."""
    span = float(keys.max() - keys.min()) + 1.0
    order = subsets.best(torch.where(chosen, keys + span, keys), ask)
    return torch.zeros_like(chosen).index_fill(0, order, True)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> SwapAnnealing:
    """Return the agent with these parameters."""
    (own,) = split(parameters, SwapSettings)
    return SwapAnnealing(own, seed)
