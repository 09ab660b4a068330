"""An agent from its name and flat parameters."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from gnnrl.errors import UserError
from gnnrl.search.agents.agent import Agent
from gnnrl.search.agents.settings import close_matches
from gnnrl.search.env import Checked, GraphEnv
from gnnrl.search.observations import ObservationSpec

BUILDERS: Mapping[str, str] = {
    name: f"gnnrl.search.agents.{name}:build"
    for name in ("annealing", "ddpg", "evolution", "ppo", "random", "reinforce", "uniform")
}


def build_agent(name: str, env: GraphEnv, *, seed: int = 0, **parameters: Any) -> Agent:
    """Return an agent for the actions and the observations of `env`.

    name: one of BUILDERS, or "package.module:function" of your own, called as
    `function(spec: ObservationSpec, seed: int, **parameters)`.
    """
    return _builder(name)(observation_spec(env), seed, **parameters)


def observation_spec(env: GraphEnv) -> ObservationSpec:
    """Return what a policy must know of the environment, from the first observation of one seed."""
    return ObservationSpec.of(Checked(env.clone()).reset(seed=0), env.action_kind)


def _builder(name: str) -> Callable[..., Agent]:
    path = BUILDERS.get(name, name)
    if ":" not in path:
        raise UserError(f"unknown agent {name!r}: {close_matches(name, BUILDERS)}")
    module, _, function = path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"agent {name!r} cannot be imported: {error}") from error
