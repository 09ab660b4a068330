"""An environment held to its contract."""

from __future__ import annotations

import math

import numpy as np
from torch_geometric.data import Data

from gnnrl.rl.env import Action, GraphEnv, Step
from gnnrl.rl.observation import ActionKind, fault
from gnnrl.rl.subsets import Choice, choice_fault, subset_fault


class Checked:
    """An environment held to its contract: what breaks it raises with the environment's name."""

    def __init__(self, env: GraphEnv) -> None:
        self.env = env
        self.steps = 0
        self._observation: Data | None = None

    def reset(self, seed: int) -> Data:
        """Start an episode; return its first observation."""
        self.steps = 0
        observation, _ = self.env.reset(seed=seed)
        return self._seen(observation)

    def step(self, action: Action) -> Step:
        """Take a step, with action, observation and reward checked."""
        if self._observation is None:
            raise ValueError(f"{self.env.name}: step before reset (or after the episode ended)")
        wrong = action_fault(action, self._observation, self.env.action_kind)
        if wrong:
            raise ValueError(f"{self.env.name}: illegal action: {wrong}")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self._check_reward(float(reward))
        if terminated or truncated:
            self._observation = None
        elif self.steps >= self.env.max_episode_steps:
            raise ValueError(
                f"{self.env.name}: the episode has not ended after {self.steps} steps (raise "
                f"max_episode_steps = {self.env.max_episode_steps}, or let it end)"
            )
        if not terminated:
            observation = self._seen(observation, keep=not truncated)
        return observation, float(reward), bool(terminated), bool(truncated), info

    def _seen(self, observation: Data, keep: bool = True) -> Data:
        wrong = fault(observation)
        if wrong is None and self.env.action_kind == "subset":
            wrong = subset_fault(observation)
        if wrong:
            raise ValueError(f"{self.env.name}: the observation {wrong}")
        self._observation = observation if keep else None
        return observation

    def _check_reward(self, reward: float) -> None:
        if not math.isfinite(reward):
            raise ValueError(
                f"{self.env.name}: the reward of step {self.steps} is {reward}, "
                "expected a finite number"
            )


def action_fault(action: Action, observation: Data, kind: ActionKind) -> str | None:
    """Say in one clause what is wrong with an action; None where nothing is."""
    decisions = observation.decision_index.numel()
    mask = observation.get("action_mask")
    given = np.asarray(action)
    if kind == "categorical":
        if given.shape != () or given.dtype.kind not in "iu":
            return f"{action!r}, expected one integer"
        if not 0 <= int(given) < decisions:
            return f"{int(given)}, expected 0 to {decisions - 1}"
        if mask is not None and not bool(mask[int(given)]):
            return f"{int(given)}, which action_mask forbids"
        return None
    if given.shape != (decisions,):
        return f"shape {given.shape}, expected one entry for each of {decisions} decisions"
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        return f"{int((~np.isfinite(given)).sum())} of {decisions} entries are NaN or infinite"
    if kind == "continuous" and (given.min() < 0 or given.max() > 1):
        return f"entries from {given.min():.4g} to {given.max():.4g}, expected [0, 1]"
    if kind in ("binary", "subset") and not np.isin(given, (0, 1)).all():
        return "entries other than 0 and 1"
    if kind == "subset":
        return choice_fault(given.astype(bool), Choice.of(observation))
    if kind == "binary" and mask is not None and bool(given[~mask.numpy()].any()):
        return "it chooses decisions which action_mask forbids"
    return None
