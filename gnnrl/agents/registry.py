"""An agent from its name and flat parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnrl.errors import UserError
from gnnrl.registry import imported, is_own, named
from gnnrl.rl.agent import Agent
from gnnrl.rl.checks import Checked
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import ObservationSpec

CRITERIA = ("magnitude", "magnitude_sign", "snip", "grasp", "synflow")
RANKINGS = {
    f"{name}{suffix}": f"gnnrl.agents.ranking:build{suffix}"
    for name in CRITERIA
    for suffix in ("", "_shuffled")
}
"""Agents that choose what scores highest; the space has the scores, by the same name."""

SUBSET = ("reinforce", "annealing", "random", *RANKINGS)
"""Agents that can choose a number of decisions."""

ON_SUBSETS = {
    "reinforce": "gnnrl.agents.reinforce_subset:build",
    "annealing": "gnnrl.agents.annealing_subset:build",
}
"""What these are called with when a number of decisions is to be chosen."""

BUILDERS: Mapping[str, str] = {
    name: f"gnnrl.agents.{name}:build"
    for name in (
        "a3c",
        "annealing",
        "ddpg",
        "evolution",
        "ppo",
        "random",
        "reinforce",
        "sensitivity",
        "uniform",
    )
} | RANKINGS


def build_agent(name: str, env: GraphEnv, *, seed: int = 0, **parameters: Any) -> Agent:
    """Return an agent for the actions and the observations of `env`.

    name: one of BUILDERS, or "package.module:function" of your own, called as
    `function(spec: ObservationSpec, seed: int, **parameters)`.
    """
    path = name if is_own(name) else named(name, BUILDERS, "agent")
    if env.action_kind == "subset" and name in BUILDERS and name not in SUBSET:
        raise UserError(
            f"the agent {name} cannot choose a number of decisions, which {env.name!r} asks for; "
            f"take one of {', '.join(SUBSET)}"
        )
    if env.action_kind != "subset" and name in RANKINGS:
        raise UserError(
            f"the agent {name} ranks what is chosen from, got {env.action_kind} actions; take it "
            "for the space filters"
        )
    if env.action_kind == "subset":
        path = ON_SUBSETS.get(name, path)
    return imported(path, "agent")(observation_spec(env), seed, **parameters)


def observation_spec(env: GraphEnv) -> ObservationSpec:
    """Return what a policy must know of the environment, from the first observation of one seed."""
    return ObservationSpec.of(Checked(env.clone()).reset(seed=0), env.action_kind)
