"""The advantage of every single decision, where many actions were tried on a graph."""

# M: actions tried on one graph   A: its decisions   F: features, 2A

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.ridge import ridge
from gnnrl.agents.saved import Saved
from gnnrl.rl.observation import distinct, structure
from gnnrl.rl.rollout import Rollout

PENALTIES = 10.0 ** torch.arange(-4, 4, dtype=torch.float64)  # of ridge, on scaled features
GRAPHS = 32  # at most; the oldest is forgotten
ENOUGH = 4  # actions tried on a graph before single decisions are credited


class Credit(Saved):
    """A separable model of the reward, r(a) = b + sum_i f_i(a_i), f_i a parabola, per graph.

    Decisions are independent given the observation, so the gradient of one needs only its own f_i
    and the residual of the model: an action-dependent baseline (Wu et al. 2018), which removes the
    noise of the other decisions and adds no bias. It is fitted to all actions tried on the graph.
    """

    STATE = ("tried",)

    def __init__(self, decay: float) -> None:
        """decay: weight of an action for every update since it was tried."""
        self.decay = decay
        self.tried: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # actions, rewards, weights

    def of(
        self, rollout: Rollout, expected: Callable[[Sequence[Data]], list[Tensor]]
    ) -> list[Tensor | None]:
        """Return the advantage of every decision of each episode, [A]; None where unknown.

        Known are single-step episodes on a graph that was decided several times.
        expected: mean action and mean square, [A, 2], of each observation under the policy.
        """
        found: list[Tensor | None] = [None] * len(rollout.episodes)
        single = [n for n, episode in enumerate(rollout.episodes) if len(episode.transitions) == 1]
        steps = [rollout.episodes[n].transitions[0] for n in single]
        if not steps:
            return found
        graphs, place = distinct([step.observation for step in steps])
        means = expected(graphs)
        for name, which in pools(graphs).items():
            members = torch.isin(place, torch.tensor(which)).nonzero().squeeze(1).tolist()
            actions = [torch.as_tensor(steps[m].decision.action).double() for m in members]
            rewards = torch.tensor([steps[m].reward for m in members]).double()
            mean = torch.stack([means[place[m]] for m in members])
            self.add(name, torch.stack(actions), rewards)
            if len(self.tried[name][0]) >= ENOUGH:
                own = self.advantages(name, len(members), mean.double())
                for member, advantages in zip(members, own, strict=True):
                    found[single[member]] = advantages
        return found

    def add(self, graph: str, actions: Tensor, rewards: Tensor) -> None:
        """Remember actions [B, A] in [0, 1] tried on a graph, and their rewards [B]."""
        weights = torch.ones_like(rewards)
        if graph in self.tried:
            older, known, faded = self.tried.pop(graph)
            actions, rewards = torch.cat([older, actions]), torch.cat([known, rewards])
            weights = torch.cat([faded * self.decay, weights])
        self.tried[graph] = (actions, rewards, weights)
        while len(self.tried) > GRAPHS:
            del self.tried[next(iter(self.tried))]

    def advantages(self, graph: str, number: int, expected: Tensor) -> Tensor:
        """Return the advantage of every decision in the last `number` actions, [number, A].

        expected [number, A, 2]: the mean of a_i and of its square under the policy that acted.
        """
        actions, rewards, weights = self.tried[graph]
        features = torch.stack([actions, actions.square()], dim=2)  # [M, A, 2]
        share = (weights / weights.sum()).view(-1, 1, 1)
        deviation = (share * (features - (share * features).sum(0)).square()).sum(0).sqrt() + 1e-6
        scaled = (features / deviation).flatten(1)
        slopes, centre, mean = ridge(scaled, rewards, weights, PENALTIES)
        own = ((features[-number:] - expected) / deviation * slopes.view(-1, 2)).sum(2)
        predicted = mean + (scaled[-number:] - centre) @ slopes
        return own + (rewards[-number:] - predicted).unsqueeze(1)


def pools(graphs: Sequence[Data]) -> dict[str, list[int]]:
    """Return which graphs share their actions, by name: those of a `pool`, else each alone."""
    found: dict[str, list[int]] = {}
    for which, graph in enumerate(graphs):
        pool = graph.get("pool")
        name = structure(graph) if pool is None else f"pool {int(pool)}"
        found.setdefault(name, []).append(which)
    return found
