"""What a search asks of workers, wherever they run: evaluations, steps, calls of any kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation, Evaluator, Plan
from gnnrl.rl.agent import Agent
from gnnrl.rl.checks import Checked
from gnnrl.rl.env import Action, GraphEnv
from gnnrl.rl.episodes import Stepped
from gnnrl.search.env import PruningEnv


@dataclass(frozen=True)
class Shared:
    """What every worker has a copy of, from the start."""

    env: GraphEnv
    agent: Agent | None = None


@dataclass(frozen=True)
class Lost:
    """What came of a call that gave no result: why, in one clause."""

    reason: str


Call = Callable[..., Any]
"""A function of a module, called by a worker as `call(shared, *arguments)`."""


class Workers(Protocol):
    """A worker pool; each call runs on the next idle worker."""

    size: int

    def submit(self, key: Hashable, call: Call, *arguments: Any, limited: bool = False) -> None:
        """Have `call(shared, *arguments)` called once; limited: it may take so much time only."""

    def completed(self) -> tuple[Hashable, Any]:
        """Wait for any of the calls; return its key and what it returned, or `Lost`."""


def evaluate_plans(shared: Shared, plans: Sequence[Plan]) -> list[Evaluation]:
    """Evaluate plans, on a worker."""
    assert isinstance(shared.env, PruningEnv)
    return list(shared.env.evaluate(plans))


def evaluations_of(
    evaluator: Evaluator, plans: Sequence[Plan], workers: Workers | None = None
) -> Iterator[tuple[int, Evaluation]]:
    """Yield the place of each plan and its evaluation, as they come, from workers or from here.

    One plan at a time, so that a search which is killed loses one evaluation at most; an evaluator
    that needs the plans of a batch together gets them in one call, and one that is here and faster
    with several gets these.
    """
    size = len(plans) if evaluator.batched else evaluator.together if workers is None else 1
    calls = [range(len(plans))[k : k + size] for k in range(0, len(plans), max(1, size))]
    if workers is None:
        for places in calls:
            yield from zip(places, evaluator([plans[i] for i in places]), strict=False)
        return
    for places in calls:
        workers.submit(places, evaluate_plans, [plans[i] for i in places], limited=True)
    for _ in calls:
        key, result = workers.completed()
        assert isinstance(key, range)
        for which, place in enumerate(key):
            lost = isinstance(result, Lost)
            found = evaluator.failed(plans[place], result.reason) if lost else result[which]
            yield place, found


def take_step(shared: Shared, env: Checked, action: Action) -> Stepped:
    """Take a step in an environment that was sent here; it is sent back."""
    return env, env.step(action)


def step_on(workers: Workers, actions: Sequence[tuple[Checked, Action]]) -> list[Stepped]:
    """Take one step in each environment, on the workers; a step cannot fail by itself."""
    for place, (env, action) in enumerate(actions):
        workers.submit(place, take_step, env, action, limited=True)
    stepped: dict[Hashable, Stepped] = {}
    for _ in actions:
        key, result = workers.completed()
        if isinstance(result, Lost):
            raise UserError(f"{actions[0][0].env.name}: a step gave no result: {result.reason}")
        stepped[key] = result
    return [stepped[place] for place in range(len(actions))]
