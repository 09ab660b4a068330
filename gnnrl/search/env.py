"""Environments whose observation is a graph, and pruning as one of them."""

# N: nodes   E: edges   A: decisions of one observation

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from torch_geometric.data import Data

from gnnrl.search.observations import ActionKind, GraphSpace, fault
from gnnrl.search.reward import Evaluation
from gnnrl.search.subsets import Choice, choice_fault, subset_fault

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
        keep [1], part [A], least [P]         of a subset: how many decisions are chosen in all,
                              the part that each is of, how many of each part at least (int64)
        score [A]             optional, of a subset: what speaks for each decision, higher = keep
        channel_x [C, K], channel_index [C]   optional second level: parts and the node they are of

    Action, by `action_kind`:
        continuous    float array [A] in [0, 1]
        binary        bool array [A]; False where the mask forbids
        categorical   int in [0, A): one of the decision nodes, one that the mask allows
        subset        bool array [A]: True exactly `keep` times, in part p at least `least[p]` times

    `step` returns (observation, reward, terminated, truncated, info) as in Gymnasium. The reward
    comes per step or at the end. Optional in `info`: `credit` [A], the reward of this step as each
    decision deserves it (continuous, binary); `plan`, at the end, what the episode decided.
    `reset(seed=...)` starts the same episode for the same seed. An observation must not be changed
    after it was handed out.

    spent: evaluation equivalents that making the environment took; a search is charged for them.
    name: names the environment in messages.  constraint: one sentence for people on what every
    answer keeps to.  max_episode_steps: an episode that is longer is an error.
    """

    name: str = "graph environment"
    action_kind: ActionKind = "continuous"
    constraint: str = ""
    max_episode_steps: int = 1000
    spent: float = 0.0
    observation_space = GraphSpace()
    metadata: ClassVar[Mapping[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def clone(self) -> GraphEnv:
        """Return an independent copy; share in it what is large and never changes."""
        return copy.deepcopy(self)


class Space(Protocol):
    """What `PruningEnv` asks of a search space."""

    size: int

    def plan(self, action: np.ndarray) -> Any:
        """Turn an action into a valid plan within the budget."""

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Cut further: the accumulated action after one more."""

    def met(self, keep: np.ndarray) -> bool:
        """Whether the accumulated action meets the budget."""

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return the graph of the network cut so far."""


Evaluate = Callable[[Sequence[Any]], Sequence[Evaluation]]


class PruningEnv(GraphEnv):
    """Cut a network to a plan within a budget; the reward is the evaluation of the plan.

    max_steps = 1: one action is the plan. More: as in GNN-RL (Yu et al. 2022) every step cuts
    further and the graph is built anew, until the budget is met or the steps are used up, when
    the space projects what was reached onto the budget.

    deferred: leave the evaluation to the caller. The last reward is then NaN, `info["plan"]` says
    what to evaluate, and `evaluate` takes the plans of many episodes at once.
    """

    name = "pruning"
    constraint = "no plan is over the budget"

    def __init__(self, space: Space, evaluate: Evaluate, max_steps: int = 1) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps {max_steps}: an episode needs at least one step")
        self.space = space
        self.evaluate = evaluate
        self.max_steps = max_steps
        self.max_episode_steps = max_steps
        self.deferred = False
        self.action_kind = getattr(space, "action_kind", "continuous")
        self.action_space = action_space(self.action_kind, space.size)
        self._first = space.observation()
        self._keep: np.ndarray | None = None
        self._steps = 0

    def clone(self) -> PruningEnv:
        """Return an environment on the same space and evaluation."""
        twin = copy.copy(self)
        twin._keep, twin._steps = None, 0
        return twin

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Data, dict[str, Any]]:
        """Start from the network as it is."""
        super().reset(seed=seed)
        self._keep, self._steps = None, 0
        return copy.copy(self._first), {}

    def step(self, action: Any) -> Step:
        """Cut; at the end of the episode `info` holds `plan` and, unless deferred, `evaluation`."""
        action = np.asarray(action)
        self._steps += 1
        if self.max_steps > 1:
            action = self._keep = self.space.step(self._keep, action)
            if self._steps < self.max_steps and not self.space.met(action):
                return self.space.observation(action), 0.0, False, False, {}
        plan = self.space.plan(action)
        info: dict[str, Any] = {"plan": plan}
        reward = math.nan
        if not self.deferred:
            (evaluation,) = self.evaluate([plan])
            info["evaluation"], reward = evaluation, evaluation.reward
        return copy.copy(self._first), reward, True, False, info


def action_space(kind: ActionKind, size: int) -> gymnasium.Space[Any]:
    """Return Gymnasium's space of the actions on `size` decisions."""
    if kind == "continuous":
        return gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
    if kind in ("binary", "subset"):
        return gymnasium.spaces.MultiBinary(size)
    return gymnasium.spaces.Discrete(size)


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
        self._check_reward(reward, terminated, info)
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

    def _check_reward(self, reward: float, terminated: bool, info: dict[str, Any]) -> None:
        later = getattr(self.env, "deferred", False) and terminated and "plan" in info
        if not later and not math.isfinite(reward):
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
