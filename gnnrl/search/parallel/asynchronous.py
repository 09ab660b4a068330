"""The search by workers that act, evaluate and compute gradients at their own pace."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.agent import Agent
from gnnrl.rl.episodes import roll_out
from gnnrl.rl.rollout import Episode, Rollout
from gnnrl.runtime import generator
from gnnrl.search.env import PruningEnv
from gnnrl.search.parallel.update_schedule import Schedule
from gnnrl.search.parallel.workers import Call, Lost, Shared, Workers, evaluate_plans
from gnnrl.search.state import SearchState

PATIENCE = 3  # calls per worker without one new plan after which the agent is taken to have settled


@runtime_checkable
class Asynchronous(Agent, Protocol):
    """An agent whose gradients can be computed elsewhere.

    `learn(rollout)` is the same as `apply([gradient(rollout)])`.
    """

    max_staleness: int

    def weights(self) -> dict[str, Any]:
        """Return a copy of what acts and what gradients are computed with."""

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take the weights of another."""

    def gradient(self, rollout: Rollout) -> dict[str, Any]:
        """Return what the episodes ask of the weights, as tensors and numbers; change nothing."""

    def apply(self, gradients: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Take one step by the mean of these gradients; return figures for the history."""


def act(
    shared: Shared, weights: Mapping[str, Any], seeds: Sequence[int], state: Tensor
) -> tuple[list[Episode], Tensor]:
    """Play episodes with these weights, on a worker; return them and the random state after."""
    agent = _agent(shared)
    agent.load_weights(weights)
    random = torch.Generator()
    random.set_state(state)
    return roll_out(shared.env, agent, seeds, random), random.get_state()


def gradient(
    shared: Shared, weights: Mapping[str, Any], episodes: Sequence[Episode]
) -> dict[str, Any]:
    """Compute the gradient of episodes that were played with these weights, on a worker."""
    agent = _agent(shared)
    agent.load_weights(weights)
    return agent.gradient(Rollout(tuple(episodes)))


def _agent(shared: Shared) -> Asynchronous:
    assert isinstance(shared.agent, Asynchronous)
    return shared.agent


@dataclass(frozen=True)
class Task:
    """Episodes played with one version; slot: whose random numbers they draw, first: a number."""

    slot: int
    first: int
    size: int


Asked = tuple[Call, Sequence[Any], bool]  # a call, its arguments, whether its time is limited


@dataclass(frozen=True)
class Contribution:
    """What came of a task."""

    episodes: Sequence[Episode]
    gradient: Mapping[str, Any]
    state: Tensor  # of the random numbers, after


class AsynchronousSearch:
    """Hands episodes to the workers until the evaluations are used up.

    A task keeps the weights it began with until its gradient is there. Every evaluation is a call
    of its own: it has its own time limit, and is written down when it comes.
    """

    def __init__(self, run: SearchState, workers: Workers, batch: int, evaluations: int) -> None:
        """batch: episodes of one task."""
        assert isinstance(run.agent, Asynchronous)
        self.run, self.workers, self.batch, self.evaluations = run, workers, batch, evaluations
        self.agent = run.agent
        self.schedule = Schedule(self.agent.max_staleness)
        self.tasks: dict[int, Task] = {}  # that run, by slot
        self.steps: dict[int, Generator[Asked, Any, Contribution]] = {}
        self.come: dict[Task, tuple[Mapping[str, Any], list[float]]] = {}  # gradients that wait
        self.states: dict[int, Tensor] = {0: run.generator.get_state()}
        self.left_over: list[Task] = []  # of a search that was killed
        self.number = 0  # of the next episode
        self.weights = self.agent.weights()

    def play(self) -> None:
        """Play until the evaluations are used up or the agent has settled."""
        self._restore()
        while True:
            while len(self.tasks) < self.workers.size and self.schedule.may_start():
                task = self._next()
                if task is None:
                    break
                self._begin(task)
            if not self.tasks:
                return
            slot, result = self.workers.completed()
            self._go_on(slot, result)  # type: ignore[arg-type]

    def _next(self) -> Task | None:
        if self.left_over:
            return self.left_over.pop(0)
        if self.run.solved or self.run.idle >= PATIENCE * self.workers.size:
            return None
        under_way = sum(task.size for task in self.tasks.values())
        left = self.run.affordable(self.evaluations, under_way)
        if not left:
            return None
        slot = next(slot for slot in range(self.workers.size) if slot not in self.tasks)
        return Task(slot, self.number, min(self.batch, left))

    def _begin(self, task: Task) -> None:
        self.number = max(self.number, task.first + task.size)
        if task.slot not in self.states:
            own = generator(self.run.seed, f"worker {task.slot}")
            self.states[task.slot] = own.get_state()
        self.tasks[task.slot], self.steps[task.slot] = task, self._work(task)
        self.schedule.start(task)
        self._submit(task.slot, next(self.steps[task.slot]))

    def _submit(self, slot: int, asked: Asked) -> None:
        call, arguments, limited = asked
        self.workers.submit(slot, call, *arguments, limited=limited)

    def _go_on(self, slot: int, result: Any) -> None:
        try:
            asked = self.steps[slot].send(result)
        except StopIteration as stop:
            self._take(slot, stop.value)
        else:
            self._submit(slot, asked)

    def _work(self, task: Task) -> Generator[Asked, Any, Contribution]:
        """Yield what a worker is to do next for this task; receive what came of it."""
        run, weights = self.run, self.weights
        seeds = run.seeds(task.first, task.size)
        at_once = not isinstance(run.env, PruningEnv)  # then steps are what takes time
        played, state = self._got((yield act, (weights, seeds, self.states[task.slot]), at_once))
        fresh: dict[str, Evaluation] = {}
        for digest, plan in run.unknown(played).items():
            known = run.seen.get(digest) or run.known(digest)
            if known is None:
                result = yield evaluate_plans, ([plan],), True
                known = self._evaluation(plan, result)
                run.write(digest, known)
            fresh[digest] = known
        episodes = run.rewarded(played, fresh)
        lessons = run.lessons(episodes)
        return Contribution(episodes, self._got((yield gradient, (weights, lessons), False)), state)

    def _evaluation(self, plan: Any, result: Any) -> Evaluation:
        if isinstance(result, Lost):
            return self.run.evaluator.failed(plan, result.reason)
        return result[0]

    def _got(self, result: Any) -> Any:
        if isinstance(result, Lost):
            raise UserError(f"{self.run.env.name}: a worker gave no result: {result.reason}")
        return result

    def _take(self, slot: int, contribution: Contribution) -> None:
        """Take what a task brought; learn from it, or keep it until it may be applied."""
        task = self.tasks.pop(slot)
        self.states[slot] = contribution.state
        for episode in contribution.episodes:
            self.run.record(episode)
        self.schedule.finish(task)
        rewards = [episode.reward for episode in contribution.episodes]
        self.come[task] = contribution.gradient, rewards
        if due := self.schedule.update():
            come = [self.come.pop(which) for which, _ in due]  # type: ignore[call-overload]
            figures = self.agent.apply([gradient for gradient, _ in come])
            stale = {"gradients": float(len(due)), "staleness": float(max(age for _, age in due))}
            self.run.learned([r for _, rewards in come for r in rewards], {**figures, **stale})
            self.weights = self.agent.weights()
        self.run.notice(task.size)
        self.run.going = self._state()
        self.run.save()

    def _state(self) -> dict[str, Any]:
        return {
            "version": self.schedule.version,
            "number": self.number,
            "states": dict(self.states),
            "running": [[t.slot, t.first, t.size] for t in self.tasks.values()],
            "waiting": [
                [[t.slot, t.first, t.size], self.schedule.waiting[t], dict(asked), rewards]
                for t, (asked, rewards) in self.come.items()
            ],
        }

    def _restore(self) -> None:
        """Go on where a search was killed: what ran is begun anew, what waited still waits."""
        if not self.run.going:
            self.number = len(self.run.rows)
            return
        going = self.run.going
        self.schedule.version, self.number = going["version"], going["number"]
        self.states = dict(going["states"])
        self.left_over = [Task(*task) for task in going["running"]]
        for task, version, asked, rewards in going["waiting"]:
            self.schedule.waiting[Task(*task)] = version
            self.come[Task(*task)] = asked, rewards
