"""The environment that every task on graphs implements."""

# N: nodes   E: edges   A: decisions of one observation

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import gymnasium
import numpy as np
from torch_geometric.data import Data

from gnnrl.rl.observation import ActionKind, GraphSpace

Action = np.ndarray | int

Step = tuple[Data, float, bool, bool, dict[str, Any]]


class GraphEnv(gymnasium.Env[Data, Any]):
    """A task on graphs: the interface between the search and any discipline.

    Observation, a `torch_geometric.data.Data` (it may be another graph after every step):
        x [N, F]              float32 node features, about [-1, 1]
        edge_index [2, E]     messages pass from edge_index[0] to edge_index[1]; where they should
                              pass both ways, name both edges
        edge_attr [E, D]      float32 edge features, D >= 1; for instance one-hot of the edge type
        decision_index [A]    the nodes that are decided, A >= 1
        action_mask [A]       optional, bool: which decisions are allowed now (binary, categorical)
        prior [A]             optional, float32: added by a policy to the mean or the logit of every
                              decision, so that its first actions lie near it
        keep [1], part [A], least [P]         of a subset: how many decisions are chosen in all,
                              the part that each is of, how many of each part at least (int64)
        score [A]             optional, of a subset: what speaks for each decision, higher = keep
        decided_index [D], decided [D]        optional: nodes that were decided in earlier steps of
                              the episode, in order, and the float32 action taken on each
        pool [1]              optional, int64: graphs of one pool have the same decisions, and what
                              is learned of one decision counts for all of them
        channel_x [C, K], channel_index [C]   optional second level: parts and the node they are of

    Action, by `action_kind`:
        continuous    float array [A] in [0, 1]
        binary        bool array [A]; False where the mask forbids
        categorical   int in [0, A): one of the decision nodes, one that the mask allows
        subset        bool array [A]: True exactly `keep` times, in part p at least `least[p]` times

    `step` returns (observation, reward, terminated, truncated, info) as in Gymnasium. The reward
    comes per step or at the end. Optional in `info`: `credit` [A], the reward of this step as each
    decision deserves it (continuous, binary); `plan`, at the end, what the episode decided;
    `pending`: the reward is not known yet, it is 0.0 here and the caller finds it out.
    `reset(seed=...)` starts the same episode for the same seed. An observation must not be changed
    after it was handed out.

    spent: evaluation equivalents that making the environment took; a search is charged for them.
    controls: plans by name that a search evaluates first, to compare with.
    starts: how many different tasks there are to start with; `seed % starts` says which, and a
    search takes them in turn.
    name: names the environment in messages.  constraint: one sentence for people on what every
    answer keeps to.  max_episode_steps: an episode that is longer is an error.
    reward_threshold: the reward at which a search ends early; None: it uses up its evaluations.
    """

    name: str = "graph environment"
    action_kind: ActionKind = "continuous"
    constraint: str = ""
    max_episode_steps: int = 1000
    spent: float = 0.0
    controls: Mapping[str, Any] = MappingProxyType({})
    reward_threshold: float | None = None
    starts: int = 1
    observation_space = GraphSpace()
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def clone(self) -> GraphEnv:
        """Return an independent copy; share in it what is large and never changes."""
        return copy.deepcopy(self)

    def front(self, plans: Sequence[Any]) -> Any:
        """Return what the best plans of all starts make together; None: nothing."""
        return None

    def player(self) -> GraphEnv:
        """Return a copy that plays episodes of a search; it may leave the last reward pending."""
        return self.clone()


def action_space(kind: ActionKind, size: int) -> gymnasium.Space[Any]:
    """Return Gymnasium's space of the actions on `size` decisions."""
    if kind == "continuous":
        return gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
    if kind in ("binary", "subset"):
        return gymnasium.spaces.MultiBinary(size)
    return gymnasium.spaces.Discrete(size)
