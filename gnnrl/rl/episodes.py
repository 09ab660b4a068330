"""Playing episodes: many at the same time, checked, and again from their actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch_geometric.data import Data

from gnnrl.rl.agent import Agent
from gnnrl.rl.checks import Checked
from gnnrl.rl.env import Action, GraphEnv, Step
from gnnrl.rl.rollout import Decision, Episode, Transition

Stepped = tuple[Checked, Step]
StepMap = Callable[[Sequence[tuple[Checked, Action]]], Sequence[Stepped]]
"""Takes one step in each environment; returns the environments after it and what they said."""


def in_turn(actions: Sequence[tuple[Checked, Action]]) -> list[Stepped]:
    """Take one step in each environment, one after the other."""
    return [(env, env.step(action)) for env, action in actions]


@dataclass
class _Play:
    """An episode in progress."""

    env: Checked
    seed: int
    observation: Data
    steps: list[Transition] = field(default_factory=list)
    episode: Episode | None = None

    def take(self, decision: Decision, stepped: Stepped) -> None:
        self.env, (seen, reward, terminated, truncated, info) = stepped
        self.steps.append(Transition(self.observation, decision, reward, info.get("credit")))
        self.observation = seen
        if terminated or truncated:
            final = None if terminated else seen
            self.episode = Episode(tuple(self.steps), self.seed, final, info)


def _start(env: GraphEnv, seed: int) -> _Play:
    checked = Checked(env.player())
    return _Play(checked, seed, checked.reset(seed))


def roll_out(
    env: GraphEnv,
    agent: Agent,
    seeds: Sequence[int],
    generator: torch.Generator,
    greedy: bool = False,
    step_map: StepMap = in_turn,
) -> list[Episode]:
    """Play an episode per seed, all of them at the same time, and return them in order.

    Rewards that are pending (`info["pending"]`) are 0.0 until the caller knows them.
    step_map: how the environments take their steps; all that go on take one at the same time.
    """
    plays = [_start(env, seed) for seed in seeds]
    going = plays
    while going:
        decisions = agent.act([play.observation for play in going], generator, greedy)
        actions = [(play.env, d.action) for play, d in zip(going, decisions, strict=True)]
        for play, decision, stepped in zip(going, decisions, step_map(actions), strict=True):
            play.take(decision, stepped)
        going = [play for play in going if play.episode is None]
    return [play.episode for play in plays if play.episode is not None]


def replay(env: GraphEnv, seed: int, actions: Sequence[Action]) -> Episode:
    """Play an episode again from its seed and its actions."""
    play = _start(env, seed)
    for action in actions:
        play.take(Decision(action), (play.env, play.env.step(action)))
    if play.episode is None:
        raise ValueError(
            f"{env.name}: an episode of {len(actions)} steps does not end when it is played again "
            "(reset with the same seed must start the same episode)"
        )
    return play.episode
