"""All that a search is made of, before it is made: what workers elsewhere make it anew from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.images import Labelled
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.rl.agent import Agent
from gnnrl.runtime import seed_everything
from gnnrl.search.build import pruning_task
from gnnrl.search.env import PruningEnv
from gnnrl.search.parallel.workers import Shared


@dataclass(frozen=True, eq=False)
class SearchRecipe:
    """Weights, graph and images as they are read from files, and settings.

    task, agent_parameters: the keywords of `pruning_task` and of `build_agent`.
    initial: the network before pretraining, where the task asks for it.
    agent_from: a saved agent to start from.  students: a folder for the best ones that are trained.
    """

    checkpoint: Checkpoint
    graph: ComputationalGraph
    reward_images: Labelled
    train_images: Labelled
    seed: int
    task: Mapping[str, Any]
    agent_name: str
    agent_parameters: Mapping[str, Any]
    agent_from: Path | None = None
    initial: Checkpoint | None = None
    students: Path | None = None

    def env(self) -> PruningEnv:
        """Return the environment, on the device that this process has."""
        env = pruning_task(
            self.checkpoint.restore(),
            self.graph,
            self.reward_images,
            self.train_images,
            seed=self.seed,
            initial=None if self.initial is None else self.initial.restore(),
            dense=self.checkpoint,
            **self.task,
        )
        if self.students is not None:
            env.evaluate.keep_in(self.students)  # type: ignore[attr-defined]
        return env

    def agent(self, env: PruningEnv) -> Agent:
        """Return the agent as it is before the search."""
        agent = build_agent(self.agent_name, env, seed=self.seed, **self.agent_parameters)
        if self.agent_from is not None:
            adopt(agent, self.agent_from)
        return agent

    def __call__(self) -> Shared:
        """Make both, for a worker."""
        seed_everything(self.seed)
        env = self.env()
        return Shared(env, self.agent(env))
