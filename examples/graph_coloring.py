"""Your own problem, your own file: colour a graph so that no two neighbours share a colour.

Nodes are coloured one at a time, each with the lowest colour that none of its neighbours has; what
is decided is which node is next.  The graphs are bipartite: two colours are enough, and a careless
order takes more.  Run it:  python examples/graph_coloring.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.search.agents.ppo import PPO, PPOSettings
from gnnrl.search.env import GraphEnv
from gnnrl.search.loop import search
from gnnrl.search.observations import ObservationSpec


class ColoringEnv(GraphEnv):
    """The reward of a step is -1 / nodes for every colour beyond the second that it opens."""

    name, action_kind = "graph colouring", "categorical"
    constraint = "neighbours never share a colour"

    def __init__(self, nodes: int = 20) -> None:
        self.nodes = self.max_episode_steps = nodes

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        half, random = self.nodes // 2, self.np_random.random((self.nodes, self.nodes))
        side = self.np_random.permutation(self.nodes) < half  # which node is on which side
        upper = np.triu(random < 3 / half, 1) & (side[:, None] != side[None])
        self.edges = upper | upper.T  # [nodes, nodes]
        self.color = np.full(self.nodes, -1)
        return self._observe(), {}

    def step(self, action):
        taken, before = set(self.color[self.edges[action]].tolist()), self.color.max()
        self.color[action] = next(c for c in range(self.nodes) if c not in taken)
        extra = max(self.color.max(), 1) - max(before, 1)
        done = bool((self.color >= 0).all())
        return self._observe(), -extra / self.nodes, done, False, {"plan": self.color.tolist()}

    def _observe(self) -> Data:
        colored = self.color >= 0
        near = (self.edges @ colored) / np.maximum(self.edges.sum(1), 1)  # coloured neighbours
        x = np.stack([colored, near, self.edges.sum(1) / 10], axis=1)
        edges = torch.from_numpy(np.argwhere(self.edges).T.copy())
        return Data(x=torch.tensor(x, dtype=torch.float32), edge_index=edges,
                    edge_attr=torch.ones(edges.shape[1], 1), action_mask=torch.tensor(~colored),
                    decision_index=torch.arange(self.nodes))  # fmt: skip


if __name__ == "__main__":
    env = ColoringEnv()
    agent = PPO(ObservationSpec.of(env.reset(seed=0)[0], env.action_kind), PPOSettings(ent_coef=0.01))
    found = search(env, agent, evaluations=600, batch=20, progress=True)
    print(*(f"{row['reward']:.3f}" for row in found.history), sep="\n")
