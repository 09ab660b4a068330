"""Greedy sensitivity: evaluate every decision alone, decide from that, then search nearby."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.black_box import BlackBox, moved
from gnnrl.agents.settings import MoveSettings, SensitivitySettings, split
from gnnrl.errors import UserError
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import ActionKind, ObservationSpec


class Sensitivity(BlackBox):
    """Evaluates every decision alone before the search and starts from the action they indicate.

    From then on it moves from the best action; moves grow when they succeed and shrink when they
    fail, so that one in five succeeds (Rechenberg 1973, the (1+1) strategy).
    """

    name = "sensitivity"
    STATE = ("best", "best_reward", "step")

    def __init__(self, settings: MoveSettings | None = None) -> None:
        super().__init__("continuous")
        self.settings = settings or SensitivitySettings()
        self.step = self.settings.step

    def prepare(self, env: GraphEnv) -> float:
        """Evaluate every decision alone; return the cost, in evaluation equivalents.

        The space of `env` has two methods: `probes(keep_ratio)` gives the unpruned plan and, for
        each decision, the plan that prunes it alone to this ratio; `informed(keep_ratio, losses)`
        gives the action [A] in [0, 1] which the losses of these plans indicate. `UserError` if it
        has not.
        """
        evaluate: Any = getattr(env, "evaluate", None)
        space: Any = getattr(env, "space", None)
        if not hasattr(space, "probes") or not hasattr(space, "informed"):
            raise UserError(
                f"the agent sensitivity evaluates decisions one by one, which {env.name!r} does "
                "not offer (its space needs `probes` and `informed`); take another agent"
            )
        assert isinstance(self.settings, SensitivitySettings)
        keep_ratio = self.settings.keep_ratio
        found = evaluate(space.probes(keep_ratio))
        action = space.informed(keep_ratio, [-evaluation.reward for evaluation in found])
        self.best = torch.as_tensor(action, dtype=torch.float32)
        return sum(evaluation.cost for evaluation in found)

    def start(self, observation: Data) -> Tensor:
        """Return one half for every decision, where `prepare` was not called."""
        return torch.full((observation.decision_index.numel(),), 0.5)

    def ask(self, observations: Sequence[Data], generator: torch.Generator) -> list[Tensor]:
        """Return the best action until it is evaluated, and moves from it."""
        vectors: list[Tensor] = []
        for seen in observations:
            best = self.start(seen) if self.best is None else self.best
            self.require_size(best, seen)
            first = not vectors and self.best_reward == -math.inf
            step = self.settings.moved, self.step
            vectors.append(best if first else moved(best, *step, generator))
        return vectors

    def tell(self, vector: Tensor, reward: float) -> None:
        """Adapt the size of moves; four failures undo one success."""
        if self.best_reward > -math.inf:
            self.step *= math.exp(0.4 if reward > self.best_reward else -0.1)

    def figures(self) -> dict[str, float]:
        """Return the size of moves, at most one half."""
        self.step = min(self.step, 0.5)
        return {"step": self.step}


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> Sensitivity:
    """Return the agent with these parameters."""
    (own,) = split(parameters, SensitivitySettings)
    require_continuous(spec.action_kind, "sensitivity")
    return Sensitivity(own)


def require_continuous(kind: ActionKind, agent: str) -> None:
    """Refuse actions that are not keep ratios."""
    if kind != "continuous":
        raise UserError(
            f"the agent {agent} decides how much to keep, got {kind} actions; take annealing or ppo"
        )
