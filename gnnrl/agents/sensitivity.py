"""Greedy sensitivity: look at every decision alone, decide from that, then try what is near."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action, require_size
from gnnrl.agents.annealing import reflected
from gnnrl.agents.settings import split
from gnnrl.errors import UserError
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import ActionKind, ObservationSpec
from gnnrl.rl.rollout import Decision, Rollout, require_single_steps
from gnnrl.settings import BelowOne, Positive, Settings, Share


class SensitivitySettings(Settings):
    """How far a decision is pruned when it is tried alone; the moves after that."""

    keep_ratio: BelowOne = 0.5
    """Of the one decision that is tried."""
    step: Positive = 0.1
    """Standard deviation of a move at first, in the unit of the action."""
    moved: Share = 0.25
    """Fraction of the decisions that a move changes, at least one."""


class Probed(Protocol):
    """A search space whose decisions can be looked at one by one."""

    def probes(self, keep_ratio: float) -> list[Any]:
        """The plan of no cut, then for each decision the plan of this cut alone."""

    def informed(self, keep_ratio: float, losses: Sequence[float]) -> np.ndarray:
        """The action [A] in [0, 1] that these losses of the probes speak for."""


class Sensitivity:
    """Evaluates every decision alone before the search, and the action which that speaks for first.

    From then on it moves from the best action to a better one; moves grow when they succeed and
    shrink when they fail, so that one in five succeeds (Rechenberg 1973, the (1+1) strategy).
    """

    def __init__(self, settings: SensitivitySettings | None = None) -> None:
        self.settings = settings or SensitivitySettings()
        self.best: Tensor | None = None
        self.best_reward = -math.inf
        self.step = self.settings.step

    def prepare(self, env: GraphEnv) -> float:
        """Look at every decision; return what it cost, in evaluation equivalents."""
        space = getattr(env, "space", None)
        if not hasattr(space, "probes") or not hasattr(space, "informed"):
            raise UserError(
                f"the agent sensitivity looks at decisions one by one, which {env.name!r} does not "
                "offer (its space needs `probes` and `informed`); take another agent"
            )
        keep_ratio = self.settings.keep_ratio
        found = env.evaluate(space.probes(keep_ratio))
        action = space.informed(keep_ratio, [-evaluation.reward for evaluation in found])
        self.best = torch.as_tensor(action, dtype=torch.float32)
        return sum(evaluation.cost for evaluation in found)

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """The best action, as long as it is not evaluated, and moves from it; greedy: the best."""
        decisions = []
        for place, seen in enumerate(observations):
            best = self._start(seen) if self.best is None else self.best
            require_size(best, seen, "sensitivity")
            first = place == 0 and self.best_reward == -math.inf
            vector = best if greedy or first else self._move(best, generator)
            decisions.append(Decision(as_action("continuous", vector, seen), raw=vector))
        return decisions

    @staticmethod
    def _start(seen: Data) -> Tensor:
        """Where nothing was looked at: the same everywhere."""
        return torch.full((seen.decision_index.numel(),), 0.5)

    def _move(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        count = max(1, round(self.settings.moved * len(origin)))
        chosen = torch.randperm(len(origin), generator=generator)[:count]
        moved = origin.clone()
        noise = torch.randn(count, generator=generator) * self.step
        moved[chosen] = reflected(moved[chosen] + noise)
        return moved

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Keep what is better; four failures take back what one success gives."""
        for transition in require_single_steps(rollout, "sensitivity"):
            assert transition.decision.raw is not None
            first, better = self.best_reward == -math.inf, transition.reward > self.best_reward
            if better:
                self.best, self.best_reward = transition.decision.raw, transition.reward
            if not first:
                self.step *= math.exp(0.4 if better else -0.1)
        self.step = min(self.step, 0.5)
        return {"step": self.step}

    def state_dict(self) -> dict[str, Any]:
        """Return the best action, its reward and the size of moves."""
        return {name: getattr(self, name) for name in ("best", "best_reward", "step")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        vars(self).update(state)


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Sensitivity:
    """Return the agent with these parameters."""
    (own,) = split(parameters, SensitivitySettings)
    _require_continuous(spec.action_kind)
    return Sensitivity(own)


def _require_continuous(kind: ActionKind) -> None:
    if kind != "continuous":
        raise UserError(
            f"the agent sensitivity decides how much of everything stays, got {kind} actions; "
            "take annealing or ppo"
        )
