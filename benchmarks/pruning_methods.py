"""The lines of the tables of `benchmarks.pruning_search`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A line of the table.

    importance, prior, race: as in params.yaml.  agent: its name; settings.  pretrained: it starts
    from the policy that ships with the library (`agent_from: pretrained`).  space: what is decided.
    """

    agent: str
    importance: str = "reconstruction"
    prior: str = "none"
    settings: tuple[tuple[str, object], ...] = ()
    evaluations: int | None = None  # None: as many as the others
    blocks: bool = False  # prune inside residual blocks only
    race: int = 0
    pretrained: bool = False
    space: str = "channels"


def _around(**settings: object) -> tuple[tuple[str, object], ...]:
    """Settings of a search that starts from the prior: an action of one half stands for it."""
    return tuple({"initial_action": 0.5, **settings}.items())


def _ppo(**settings: object) -> tuple[tuple[str, object], ...]:
    return _around(**{"initial_std": 0.4, **settings})


METHODS = {
    "uniform l1": Method("uniform", "l1", evaluations=1),
    "uniform": Method("uniform", evaluations=1),
    "random l1": Method("random", "l1"),
    "random": Method("random"),
    "uniform l1 in blocks": Method("uniform", "l1", evaluations=1, blocks=True),
    "uniform in blocks": Method("uniform", evaluations=1, blocks=True),
    "random in blocks": Method("random", blocks=True),
    "allocation": Method("uniform", prior="reconstruction", evaluations=1),
    "allocation, depth and width": Method(
        "uniform", prior="reconstruction", evaluations=1, space="joint"
    ),
    "random around allocation": Method("random", prior="reconstruction"),
    "sensitivity": Method("sensitivity"),
    "sensitivity l1": Method("sensitivity", "l1"),
    "bottleneck": Method("uniform", "bottleneck", prior="bottleneck", evaluations=1),
    "bottleneck and reconstruction": Method("uniform", prior="bottleneck", evaluations=1),
    "ppo around bottleneck": Method("ppo", prior="bottleneck", settings=_ppo()),
    "evolution": Method("evolution", prior="reconstruction", settings=_around(sigma=0.1)),
    "evopress": Method("evopress", prior="reconstruction", race=125),
    "solver": Method("solver", prior="reconstruction"),
    "annealing": Method("annealing", prior="reconstruction", settings=_around(step=0.2)),
    "ddpg": Method("ddpg", prior="reconstruction", settings=_around(warmup=16, noise_std=0.1)),
    "ppo": Method("ppo", prior="reconstruction", settings=_ppo()),
    "ppo, depth and width": Method("ppo", prior="reconstruction", settings=_ppo(), space="joint"),
    "pretrained": Method("ppo", prior="reconstruction", settings=_ppo(), pretrained=True),
    "pretrained plan": Method(
        "ppo", prior="reconstruction", settings=_ppo(), evaluations=1, pretrained=True
    ),
    "ppo without prior": Method("ppo", settings=_ppo(initial_std=0.7)),
    "ppo, features blanked": Method("ppo", prior="reconstruction", settings=_ppo(blind=True)),
    "ppo, no message passing": Method(
        "ppo", prior="reconstruction", settings=_ppo(message_passing=False)
    ),
}
