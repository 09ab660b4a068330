"""Hill climbing on one action: move from the best action so far, keep what is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.actions import as_action, require_size
from gnnrl.agents.annealing import reflected
from gnnrl.errors import UserError
from gnnrl.rl.observation import ActionKind
from gnnrl.rl.rollout import Decision, Rollout, require_single_steps
from gnnrl.settings import Positive, Settings, Share


class MoveSettings(Settings):
    """The moves from the best action."""

    step: Positive = 0.1
    """Standard deviation of a move at first, in the unit of the action."""
    moved: Share = 0.25
    """Fraction of the decisions that a move changes, at least one."""


class Climber:
    """Moves from the best vector `[A]` in [0, 1] to a better one.

    Moves grow when they succeed and shrink when they fail, so that one in five succeeds
    (Rechenberg 1973, the (1+1) strategy).
    """

    name = "climber"

    def __init__(self, settings: MoveSettings) -> None:
        self.moves = settings
        self.best: Tensor | None = None
        self.best_reward = -math.inf
        self.step = settings.step

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide the best, as long as it is not evaluated, and moves from it; greedy: the best."""
        decisions = []
        for place, seen in enumerate(observations):
            best = self.start(seen) if self.best is None else self.best
            require_size(best, seen, self.name)
            first = place == 0 and self.best_reward == -math.inf
            vector = best if greedy or first else self.move(best, generator)
            decisions.append(Decision(self.action(vector, seen), raw=vector))
        return decisions

    def start(self, seen: Data) -> Tensor:
        """Return where it starts if nothing is known: the same everywhere."""
        return torch.full((seen.decision_index.numel(),), 0.5)

    def action(self, vector: Tensor, seen: Data) -> Any:
        """Return the action that a vector stands for: itself."""
        return as_action("continuous", vector, seen)

    def move(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        """Return a vector near the origin."""
        count = max(1, round(self.moves.moved * len(origin)))
        chosen = torch.randperm(len(origin), generator=generator)[:count]
        moved = origin.clone()
        noise = torch.randn(count, generator=generator) * self.step
        moved[chosen] = reflected(moved[chosen] + noise)
        return moved

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Keep what is better; four failures take back what one success gives."""
        for transition in require_single_steps(rollout, self.name):
            assert transition.decision.raw is not None
            first, better = self.best_reward == -math.inf, transition.reward > self.best_reward
            if better:
                self.best, self.best_reward = transition.decision.raw, transition.reward
            if not first:
                self.step *= math.exp(0.4 if better else -0.1)
        self.step = min(self.step, 0.5)
        return {"step": self.step}

    def state_dict(self) -> dict[str, Any]:
        """Return the best vector, its reward and the size of moves."""
        return {name: getattr(self, name) for name in ("best", "best_reward", "step")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        vars(self).update(state)


def require_continuous(kind: ActionKind, agent: str) -> None:
    """Refuse actions that are not keep ratios."""
    if kind != "continuous":
        raise UserError(
            f"the agent {agent} decides how much of everything is kept, got {kind} actions; "
            "take annealing or ppo"
        )
