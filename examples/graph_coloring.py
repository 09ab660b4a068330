"""Your own problem in your own file: colour a graph so that no two neighbours share a colour.

The agent says which node is next; it gets the lowest colour that none of its neighbours has. The
graphs are bipartite: two colours are enough, a careless order takes more.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.agents.ppo import PPO
from gnnrl.agents.settings import PPOSettings
from gnnrl.rl.env import GraphEnv, Step
from gnnrl.rl.observation import ObservationSpec
from gnnrl.search.loop import SearchResult, search


class ColoringEnv(GraphEnv):
    name, action_kind = "graph colouring", "categorical"
    constraint = "neighbours never share a colour"

    def __init__(self, nodes: int = 12) -> None:
        self.nodes = self.max_episode_steps = nodes

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Data, dict]:
        super().reset(seed=seed)
        side = self.np_random.permutation(self.nodes) < self.nodes // 2
        likely = self.np_random.random((self.nodes, self.nodes)) < 6 / self.nodes
        upper = np.triu(likely, 1) & (side[:, None] != side)
        self.edges, self.color = upper | upper.T, np.full(self.nodes, -1)
        return self._observe(), {}

    def step(self, action: int) -> Step:
        taken, before = set(self.color[self.edges[action]].tolist()), self.color.max()
        self.color[action] = next(color for color in range(self.nodes) if color not in taken)
        extra = max(self.color.max(), 1) - max(before, 1)  # colours beyond the second
        done = bool((self.color >= 0).all())
        return self._observe(), -extra / self.nodes, done, False, {"plan": self.color.tolist()}

    def _observe(self) -> Data:
        colored, degree = self.color >= 0, self.edges.sum(1)
        x = np.stack([colored, self.edges @ colored / np.maximum(degree, 1), degree / 10], axis=1)
        edges = torch.from_numpy(np.argwhere(self.edges).T.copy())
        return Data(x=torch.tensor(x, dtype=torch.float32), edge_index=edges,
                    edge_attr=torch.ones(edges.shape[1], 1), action_mask=torch.tensor(~colored),
                    decision_index=torch.arange(self.nodes))  # fmt: skip


def solve(evaluations: int = 300, seed: int = 0) -> SearchResult:
    env = ColoringEnv()
    spec = ObservationSpec.of(env.reset(seed=seed)[0], env.action_kind)
    agent = PPO(spec, PPOSettings(n_epochs=4, target_kl=0.1, imitation_coef=0.0), seed=seed)
    return search(env, agent, evaluations=evaluations, batch=12, seed=seed)


if __name__ == "__main__":
    for row in solve().history:
        print(f"{row['episodes']:.0f} graphs: reward {row['reward']:.4f}")
