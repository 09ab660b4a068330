"""An agent from its name and flat parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnrl.errors import UserError
from gnnrl.registry import imported, is_own, named

if TYPE_CHECKING:
    from gnnrl.rl.agent import Agent
    from gnnrl.rl.env import GraphEnv
    from gnnrl.rl.observation import ObservationSpec


@dataclass(frozen=True)
class Builders:
    """The files of an agent in this folder; each has a function `build`.

    every: where each node is decided by itself.  subset: where a number of nodes is chosen.
    subset_section: the key of `search` with its settings there, if not the agent's name.
    encoder: whether it has a graph encoder.
    """

    every: str | None = None
    subset: str | None = None
    subset_section: str | None = None
    encoder: bool = False


AGENTS: Mapping[str, Builders] = {
    "a3c": Builders("a3c", encoder=True),
    "annealing": Builders("annealing", "annealing_subset", "swaps"),
    "ddpg": Builders("ddpg", encoder=True),
    "evolution": Builders("evolution"),
    "evopress": Builders("evopress"),
    "ppo": Builders("ppo", encoder=True),
    "random": Builders("random", "random"),
    "ranking": Builders(None, "ranking"),
    "reinforce": Builders("reinforce", "reinforce_subset", "plackett_luce", encoder=True),
    "sensitivity": Builders("sensitivity"),
    "solver": Builders("solver"),
    "uniform": Builders("uniform"),
}
"""Which agent stands behind a name, by what is to be decided."""

SUBSET = tuple(name for name, builders in AGENTS.items() if builders.subset)
"""Agents that can choose a number of decisions."""


def section_of(agent: str, subset: bool) -> str:
    """Return the key of `search` that the settings of an agent stand under."""
    builders = AGENTS.get(agent, Builders())
    return (builders.subset_section if subset else None) or agent


def build_agent(name: str, env: GraphEnv, *, seed: int = 0, **parameters: Any) -> Agent:
    """Return an agent for the actions and the observations of `env`.

    name: a key of AGENTS, or "package.module:function" of your own, called as
    `function(spec: ObservationSpec, seed: int, **parameters)`.
    """
    path = name if is_own(name) else _path(name, env)
    return imported(path, "agent")(observation_spec(env), seed, **parameters)


def _path(name: str, env: GraphEnv) -> str:
    builders = named(name, AGENTS, "agent")
    if env.action_kind == "subset" and builders.subset is None:
        raise UserError(
            f"the agent {name} cannot choose a number of decisions, which {env.name!r} asks for; "
            f"take one of {', '.join(SUBSET)}"
        )
    if env.action_kind != "subset" and builders.every is None:
        raise UserError(
            f"the agent {name} ranks what is chosen from, got {env.action_kind} actions; take it "
            "for the space filters"
        )
    file = builders.subset if env.action_kind == "subset" else builders.every
    return f"gnnrl.agents.{file}:build"


def observation_spec(env: GraphEnv) -> ObservationSpec:
    """Return what a policy must know of the environment, from the first observation of one seed."""
    from gnnrl.rl.checks import Checked
    from gnnrl.rl.observation import ObservationSpec

    return ObservationSpec.of(Checked(env.clone()).reset(seed=0), env.action_kind)
