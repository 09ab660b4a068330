"""Which agents find the best 480 of 960 filters if each filter has a fixed value.

    python -m benchmarks.filter_sums

The reward of a plan is the sum of u over the filters it keeps: nothing is trained, the optimum is
known. The agents are those of the space `filters` on BasicCNN; `old loss` is the one of the thesis,
whose gradient does not depend on the mask (docs/inverted-reward.md), `random` the best of as many.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data

from gnnrl.agents.registry import build_agent
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import random
from gnnrl.rl.rollout import Decision, Rollout
from gnnrl.rl.subsets import Choice, as_mask, best
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.filters import FilterSpace

SMALL = {"hidden": 32, "layers": 1, "encoder": "plain"}
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("reinforce", SMALL),
    "reinforce, baseline alone": (
        "reinforce",
        {**SMALL, "credit": False, "table_learning_rate": 0.1},
    ),
    "annealing": ("annealing", {}),
    "annealing, any swap": ("annealing", {"learned": False, "cooling": 0.99}),
    "random": ("random", {}),
}


class OldLoss:
    """The thesis's agent: a softmax over filters, its smallest pruned; sum_i -log p_i * reward.

    sign -1 is its "inverted" form.
    """

    def __init__(self, sign: float, seed: int, learning_rate: float = 1e-3) -> None:
        self.sign, self.seed, self.learning_rate = sign, seed, learning_rate
        self.network: nn.Sequential | None = None

    def scores(self, seen: Data) -> torch.Tensor:
        score = seen.score
        state = (score - score.min()) / (score.max() - score.min())
        if self.network is None:
            torch.manual_seed(self.seed)
            size = len(state)
            self.network = nn.Sequential(
                nn.Linear(size, 512),
                nn.ReLU(),
                nn.Linear(512, 512),
                nn.ReLU(),
                nn.Linear(512, size),
            )
            parameters = self.network.parameters()
            self.optimizer = torch.optim.SGD(parameters, lr=self.learning_rate)
        return self.network(state)

    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        with torch.no_grad():
            scores = [self.scores(seen) for seen in observations]
        masks = [
            as_mask(best(score, Choice.of(seen)), len(score))
            for score, seen in zip(scores, observations, strict=True)
        ]
        return [Decision(mask) for mask in masks]

    def learn(self, rollout: Rollout) -> dict[str, float]:
        for step in rollout.transitions:
            chances = self.scores(step.observation).log_softmax(0).clamp(min=-80)
            loss = -self.sign * chances.sum() * step.reward
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}


class Sums:
    """Evaluate plans: the value of the kept filters as a fraction of the optimum."""

    def __init__(self, space: FilterSpace, values: np.ndarray) -> None:
        self.space, self.values = space, values
        self.optimum = float(np.sort(values)[-space.keep :].sum())

    def __call__(self, plans: Sequence[Any]) -> list[Evaluation]:
        return [
            Evaluation(float(self.values[self.space.kept(plan)].sum() / self.optimum))
            for plan in plans
        ]


def environment(kind: str, sparsity: float, seed: int) -> PruningEnv:
    """Return BasicCNN with 960 filters; kind: the distribution of their values."""
    network = build_network("basic_cnn")
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    space = FilterSpace(graph, random(network, graph, seed), Budget(sparsity=sparsity))
    drawn = np.random.default_rng(seed)
    values = drawn.random(space.size) if kind == "uniform" else drawn.standard_normal(space.size)
    return PruningEnv(space, Sums(space, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5])
    parser.add_argument("--agents", nargs="+", default=[*AGENTS, "old loss", "old loss, inverted"])
    options = parser.parse_args()
    for kind in ("uniform", "normal"):
        for sparsity in options.sparsities:
            for name in options.agents:
                start, found = time.perf_counter(), []
                for seed in range(options.seeds):
                    env = environment(kind, sparsity, seed)
                    if name.startswith("old"):
                        agent: Any = OldLoss(-1.0 if "inverted" in name else 1.0, seed)
                    else:
                        agent = build_agent(AGENTS[name][0], env, seed=seed, **AGENTS[name][1])
                    result = search(
                        env, agent, evaluations=options.evaluations, batch=options.batch, seed=seed
                    )
                    found.append(100 * result.reward)
                seconds = (time.perf_counter() - start) / options.seeds
                print(
                    f"{kind} values, sparsity {sparsity}, {options.evaluations} evaluations: "
                    f"{name} {np.mean(found):.2f} % of the optimum (worst of {options.seeds} seeds "
                    f"{min(found):.2f}), {seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
