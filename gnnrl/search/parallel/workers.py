"""What a search asks of workers, wherever they run: evaluations, steps, calls of any kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.agent import Agent
from gnnrl.rl.checks import Checked
from gnnrl.rl.env import Action, GraphEnv
from gnnrl.rl.episodes import Stepped
from gnnrl.search.env import Evaluate

FAILED = -1.0
"""Reward of a plan that gave no result, where the evaluator does not have one of its own."""


@dataclass(frozen=True)
class Shared:
    """What every worker has a copy of, from the start."""

    env: GraphEnv
    agent: Agent | None = None


@dataclass(frozen=True)
class RaySettings:
    """How many workers, what each of them is given, and when it is given up.

    workers: processes, each with a copy of network, images and agent.  cpus, gpus: of each, as Ray
    counts them; fractions share a GPU.  cpus is also the number of threads it computes with.
    timeout_s: seconds that one evaluation may take.
    """

    workers: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        for name, low in (("workers", 1), ("gpus", 0)):
            if getattr(self, name) < low:
                raise UserError(f"ray.{name} {getattr(self, name)}: expected at least {low}")
        for name in ("cpus", "timeout_s"):
            if getattr(self, name) <= 0:
                raise UserError(f"ray.{name} {getattr(self, name)}: expected more than 0")


@dataclass(frozen=True)
class Lost:
    """What came of a call that gave no result: why, in one clause."""

    reason: str


Call = Callable[..., Any]
"""A function of a module, called by a worker as `call(shared, *arguments)`."""


class Workers(Protocol):
    """Calls functions elsewhere; who is free gets the next one."""

    size: int

    def submit(self, key: Hashable, call: Call, *arguments: Any, limited: bool = False) -> None:
        """Have `call(shared, *arguments)` called once; limited: it may take so much time only."""

    def completed(self) -> tuple[Hashable, Any]:
        """Wait for any of the calls; return its key and what it returned, or `Lost`."""


def evaluate_plans(shared: Shared, plans: Sequence[Any]) -> list[Evaluation]:
    """Evaluate plans, on a worker."""
    return list(shared.env.evaluate(plans))  # type: ignore[attr-defined]


def take_step(shared: Shared, env: Checked, action: Action) -> Stepped:
    """Take a step in an environment that was sent here; it is sent back."""
    return env, env.step(action)


def failed(evaluate: Evaluate, plan: Any, reason: str) -> Evaluation:
    """Return the evaluation of a plan that gave none: as the evaluator has it, else FAILED."""
    own = getattr(evaluate, "failed", None)
    if own is not None:
        return own(plan, reason)
    return Evaluation(FAILED, 0.0, status=reason, cost=getattr(evaluate, "cost", 1.0))


def evaluate_on(
    workers: Workers, evaluate: Evaluate, plans: Sequence[Any]
) -> Iterator[tuple[int, Evaluation]]:
    """Share plans out; yield the place of each and its evaluation as they come.

    A race takes the plans of a batch together, so that it is one call.
    """
    races = getattr(evaluate, "races", False)
    calls = [range(len(plans))] if races else [range(i, i + 1) for i in range(len(plans))]
    for places in calls:
        workers.submit(places, evaluate_plans, [plans[i] for i in places], limited=True)
    for _ in calls:
        places, result = workers.completed()
        for which, place in enumerate(places):  # type: ignore[arg-type, var-annotated]
            lost = isinstance(result, Lost)
            found = failed(evaluate, plans[place], result.reason) if lost else result[which]
            yield place, found


def step_on(workers: Workers, actions: Sequence[tuple[Checked, Action]]) -> list[Stepped]:
    """Take one step in each environment, on the workers; a step cannot fail by itself."""
    for place, (env, action) in enumerate(actions):
        workers.submit(place, take_step, env, action, limited=True)
    stepped: dict[Hashable, Stepped] = {}
    for _ in actions:
        place, result = workers.completed()
        if isinstance(result, Lost):
            raise UserError(f"{actions[0][0].env.name}: a step gave no result: {result.reason}")
        stepped[place] = result
    return [stepped[place] for place in range(len(actions))]
