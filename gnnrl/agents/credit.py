"""What each decision of an action deserves of its reward, where many actions were tried."""

# M: actions tried on one graph   A: its decisions   F: features, 2A

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.saved import Saved
from gnnrl.rl.observation import digest, distinct
from gnnrl.rl.rollout import Rollout

SHRINKAGE = tuple(10.0**power for power in range(-4, 4))  # ridge penalties that are tried
GRAPHS = 32  # graphs remembered at most
ENOUGH = 4  # actions tried on a graph before it says anything about single decisions


class Credit(Saved):
    """A separable model of the reward, r(a) = b + sum_i f_i(a_i), f_i a parabola, per graph.

    Decisions are independent given the observation, so the gradient of one needs its own f_i only
    and what the model leaves unexplained: an action-dependent baseline (Wu et al. 2018) which
    takes away the noise of the other decisions and adds no bias. It is fitted by ridge regression
    to all actions tried on the same graph; the penalty by leaving one out, exactly.
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
        for which, (graph, mean) in enumerate(zip(graphs, expected(graphs), strict=True)):
            members = (place == which).nonzero().squeeze(1).tolist()
            actions = [torch.as_tensor(steps[m].decision.action).double() for m in members]
            rewards = torch.tensor([steps[m].reward for m in members]).double()
            name = digest(graph)
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

        expected [A, 2]: the mean of a_i and of its square under the policy that acted.
        """
        actions, rewards, weights = self.tried[graph]
        features = torch.stack([actions, actions.square()], dim=2)  # [M, A, 2]
        slopes, mean = ridge(features.flatten(1), rewards, weights)
        slopes = slopes.view(-1, 2)
        own = ((features[-number:] - expected) * slopes).sum(2)  # [number, A]
        centre = torch.einsum("mak,m->ak", features, weights) / weights.sum()
        predicted = mean + ((features[-number:] - centre) * slopes).sum((1, 2))
        return own + (rewards[-number:] - predicted).unsqueeze(1)


def ridge(features: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression with an intercept; return the slopes [F] and the mean target.

    features [M, F], targets [M], weights [M]. Features are brought to unit scale; the penalty is
    that of SHRINKAGE with the least squared error when every action is left out in turn.
    """
    share = weights / weights.sum()
    mean = share @ targets
    centred = features - share @ features
    scale = (share @ centred.square()).sqrt() + 1e-6
    root = share.sqrt()
    x, y = centred / scale * root.unsqueeze(1), (targets - mean) * root
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    best, chosen = torch.tensor(torch.inf), torch.zeros_like(s)
    for penalty in SHRINKAGE:
        shrunk = s.square() / (s.square() + penalty)
        fitted = u @ (shrunk * (u.T @ y))
        leverage = (u.square() @ shrunk + share).clamp(max=0.999)  # the intercept's share included
        error = ((y - fitted) / (1 - leverage)).square().sum()
        if error < best:
            best, chosen = error, s / (s.square() + penalty)
    return v.T @ (chosen * (u.T @ y)) / scale, mean
