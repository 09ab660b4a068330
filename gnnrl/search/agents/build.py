"""An agent from its name and flat parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnrl.named import imported, is_own, named
from gnnrl.search.agents.agent import Agent
from gnnrl.search.env import Checked, GraphEnv
from gnnrl.search.observations import ObservationSpec

BUILDERS: Mapping[str, str] = {
    name: f"gnnrl.search.agents.{name}:build"
    for name in (
        "annealing",
        "ddpg",
        "evolution",
        "ppo",
        "random",
        "reinforce",
        "sensitivity",
        "uniform",
    )
}


def build_agent(name: str, env: GraphEnv, *, seed: int = 0, **parameters: Any) -> Agent:
    """Return an agent for the actions and the observations of `env`.

    name: one of BUILDERS, or "package.module:function" of your own, called as
    `function(spec: ObservationSpec, seed: int, **parameters)`.
    """
    path = name if is_own(name) else named(name, BUILDERS, "agent")
    return imported(path, "agent")(observation_spec(env), seed, **parameters)


def observation_spec(env: GraphEnv) -> ObservationSpec:
    """Return what a policy must know of the environment, from the first observation of one seed."""
    return ObservationSpec.of(Checked(env.clone()).reset(seed=0), env.action_kind)
