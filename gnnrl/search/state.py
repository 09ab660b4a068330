"""A search between two batches: the episodes so far, their evaluations, the journal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided, Evaluation, Evaluator
from gnnrl.progress import Progress
from gnnrl.rl.agent import Agent, Prepared
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.episodes import replay
from gnnrl.rl.rollout import Episode
from gnnrl.search.env import PruningEnv
from gnnrl.search.journal import Journal
from gnnrl.search.pending import bare, evaluated, is_pending, with_reward
from gnnrl.search.watched import Watched

SAVED = ("rows", "history", "spent", "idle", "finished", "going", "controls")
"""Fields that a journal keeps as they are."""

SMALLEST = 1e-6
"""Rewards of a first episode that are nearer to zero count as so large."""


@dataclass
class SearchState:
    """The state of a search between two batches."""

    env: GraphEnv
    agent: Agent
    seed: int
    repeats: int = 1
    journal: Journal | None = None
    wanted: int = 1  # leaders that are remembered
    seen: dict[str, Evaluation] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    spent: float = 0.0
    idle: int = 0  # batches without a new plan
    finished: bool = False
    best: Episode | None = None
    leaders: list[Episode] = field(default_factory=list)  # with the best plans, best first
    first: list[Episode] = field(default_factory=list)  # what the agent decided before it learned
    bar: Progress | None = None
    watched: Watched | None = None
    going: dict[str, Any] = field(default_factory=dict)  # of workers that were not done
    controls: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def evaluator(self) -> Evaluator:
        """What evaluates plans; only environments that decide plans have one."""
        assert isinstance(self.env, PruningEnv)
        return self.env.evaluate

    @property
    def best_reward(self) -> float:
        """The largest reward so far."""
        return -math.inf if self.best is None else self.best.reward

    @property
    def solved(self) -> bool:
        """Whether the best reward has reached the environment's threshold."""
        threshold = self.env.reward_threshold
        return threshold is not None and self.best_reward >= threshold

    def leading(self, start: int) -> tuple[tuple[Any, float], ...]:
        """Return the best plans of the episodes with this start, with their rewards; where several
        are wanted, the agent's first decision takes the last place if it is not among them."""
        best, first = (
            {e.info["plan"].digest: e for e in episodes if self.start(e) == start}
            for episodes in (self.leaders, self.first)
        )
        if self.wanted > 1 and not first.keys() <= best.keys():
            best = dict(list(best.items())[: self.wanted - 1]) | first
        return tuple((episode.info["plan"], episode.reward) for episode in best.values())

    def best_plan(self) -> Any:
        """Return the plan of the best episode; its actions where it has none."""
        assert self.best is not None
        return self.best.info.get("plan", [step.decision.action for step in self.best.transitions])

    @property
    def cost(self) -> float:
        """Evaluation equivalents of an episode, if its plan is new."""
        return self.evaluator.cost if isinstance(self.env, PruningEnv) else 1.0

    def affordable(self, evaluations: float, under_way: int = 0) -> int:
        """Return how many more episodes can be paid for, those at the end (`starts`) put aside.

        under_way: episodes that are not in `spent` yet.
        """
        left = evaluations - self.spent - under_way * self.cost
        last = self.env.starts
        most = math.floor(left / self.cost + 1e-9) - last if self.cost else math.inf
        return int(max(0, min(math.ceil(left - last), most)))

    def refuse_too_few(self, evaluations: float, controls: int) -> None:
        """Raise `UserError` where what comes first, and one plan, cost more than may be spent."""
        plans = "one plan" if self.env.starts == 1 else f"{self.env.starts} plans"
        least = self.spent + (controls + self.env.starts) * self.cost
        if least > evaluations + 1e-9:
            raise UserError(
                f"evaluations {evaluations}: {self.spent:.4g} are spent before the search, its "
                f"{controls} controls and {plans} cost {self.cost:.4g} each: allow at least "
                f"{math.ceil(least)}, or set search.controls to false"
            )

    def learned(self, rewards: Sequence[float], figures: Mapping[str, float]) -> None:
        """Add an update of the agent, from episodes with these rewards, to the history."""
        self.history.append(
            {"episodes": float(len(self.rows)), "spent": self.spent, "best": self.best_reward,
             "reward": float(np.mean(rewards)), "reward_std": float(np.std(rewards)), **figures}
        )  # fmt: skip
        if self.watched is not None:
            self.watched.learned(self.history[-1], rewards)
            self.watched.keep(len(self.history), self.agent)

    def notice(self, size: int) -> None:
        """Take note of whether the last `size` episodes brought a new plan."""
        settled = all(row.get("cached", False) for row in self.rows[-size:])
        self.idle = self.idle + 1 if settled else 0

    def seeds(self, first: int, size: int) -> list[int]:
        """Return the seeds of the episodes numbered from `first` on."""
        numbers = [(first + i) // self.repeats for i in range(size)]
        return [_episode_seed(self.seed, number, self.env.starts) for number in numbers]

    def start(self, episode: Episode) -> int:
        """Return which of the environment's starts an episode had."""
        return episode.seed % self.env.starts

    def begin(self, episodes: Sequence[Episode]) -> None:
        """Remember what the agent decided before it learned, where that was evaluated."""
        self.first = [bare(episode) for episode in episodes if "evaluation" in episode.info]

    def record(self, episode: Episode) -> None:
        """Add an episode to the rows."""
        evaluation = episode.info.get("evaluation")
        self.spent += 1.0 if evaluation is None else evaluation.cost
        start = self.start(episode)
        if not start and episode.reward > self.best_reward:
            self.best = bare(episode)
        alike = [e for e in self.leaders if self.start(e) == start]
        if evaluation is not None and not (evaluation.cached and alike):
            others = [e for e in self.leaders if self.start(e) != start]
            alike = sorted([*alike, bare(episode)], key=lambda e: -e.reward)
            self.leaders = others + alike[: self.wanted]
        row: dict[str, Any] = {"episode": len(self.rows), "steps": len(episode.transitions)}
        row |= {"budget": episode.info["budget"]} if "budget" in episode.info else {}
        if evaluation is None:
            row |= {"reward": episode.reward}
        else:
            row |= {"plan": episode.info["plan"].digest, **evaluation.row()}
        self.rows.append(row | {"best": self.best_reward})
        if self.watched is not None:
            self.watched.played(self.rows[-1])
        self.show(self.spent, self.best_reward)

    def record_control(self, name: str, digest: str, evaluation: Evaluation) -> None:
        """Add a plan that is evaluated for comparison."""
        self.spent += evaluation.cost
        row = {"episode": -1, "steps": 0, "plan": digest, **evaluation.row(), "control": name}
        self.controls.append(row)

    def show(self, spent: float, best: float) -> None:
        """Show how far the search is."""
        if self.bar is not None and math.floor(spent) > self.bar.done:
            self.bar.advance(min(math.floor(spent), self.bar.total) - self.bar.done, best=best)

    def unknown(self, episodes: Sequence[Episode]) -> dict[str, Decided]:
        """Return, by digest, the plans of the episodes that have not been evaluated."""
        waiting = [episode.info["decided"] for episode in episodes if is_pending(episode)]
        plans = {decided.plan.digest: decided for decided in waiting}
        return {digest: plan for digest, plan in plans.items() if digest not in self.seen}

    def rewarded(
        self, episodes: Sequence[Episode], fresh: Mapping[str, Evaluation]
    ) -> list[Episode]:
        """Return the episodes with their rewards, from evaluations made for them or earlier."""
        done, fresh = [], dict(fresh)
        for episode in episodes:
            if is_pending(episode):
                digest = episode.info["plan"].digest
                if digest not in self.seen:
                    evaluation = self.seen[digest] = fresh.pop(digest)
                else:  # another worker may have been first
                    cost = fresh.pop(digest).cost if digest in fresh else 0.0
                    evaluation = replace(self.seen[digest].as_cached(), cost=cost)
                episode = evaluated(episode, evaluation)
            done.append(episode)
        return done

    def lessons(self, episodes: Sequence[Episode]) -> list[Episode]:
        """Return the episodes with the rewards that the agent learns from (`shaped_reward`).

        Where there are several starts, the reward is how much better an episode is than the first
        one with the same start, in parts of that one's reward: else small budgets would rule.
        """
        updates, shaped = len(self.history), []
        for episode in episodes:
            if "evaluation" in episode.info:
                reward = self.evaluator.shaped_reward(episode.info["evaluation"], updates)
                if self.env.starts > 1:
                    first = self.rows[self.start(episode)]["reward"]
                    reward = (reward - first) / max(abs(first), SMALLEST)
                episode = with_reward(episode, reward)
            shaped.append(episode)
        return shaped

    def known(self, digest: str) -> Evaluation | None:
        """Return the evaluation of a plan in the journal, or that of a control, which is free."""
        for control in self.controls:
            if control["plan"] == digest:
                own = ("episode", "steps", "plan", "control")
                row = {name: value for name, value in control.items() if name not in own}
                return replace(Evaluation.from_row(row), cost=0.0)
        return self.journal.known(digest) if self.journal is not None else None

    def write(self, digest: str, evaluation: Evaluation) -> None:
        """Write an evaluation down, if there is a journal."""
        if self.journal is not None:
            self.journal.add(digest, evaluation)

    def resume(self) -> None:
        """Go on from the journal; where there is nothing, let the agent get ready."""
        state = self.journal.load() if self.journal is not None else None
        if state is None:
            self.spent = self.env.spent
            if isinstance(self.agent, Prepared):
                self.spent += self.agent.prepare(self.env)
            self.save()
            return
        self.agent.load_state_dict(state.pop("agent"))
        self.generator.set_state(state.pop("generator"))
        self.seen = {d: Evaluation.from_row(row) for d, row in state.pop("seen").items()}
        best, leaders, first = state.pop("best"), state.pop("leaders"), state.pop("first", [])
        vars(self).update(state)
        self.best = best and self._replayed(best)
        self.leaders = [self._replayed(leader) for leader in leaders]
        self.first = [self._replayed(episode) for episode in first]

    def _replayed(self, noted: Mapping[str, Any]) -> Episode:
        actions = [a.numpy() if isinstance(a, torch.Tensor) else a for a in noted["actions"]]
        (episode,) = self.rewarded([replay(self.env, noted["seed"], actions)], {})
        return bare(episode)

    def save(self) -> None:
        """Write the state down, if there is a journal."""
        if self.journal is None:
            return
        best, leaders = self.best and _noted(self.best), [_noted(e) for e in self.leaders]
        first = [_noted(episode) for episode in self.first]
        seen = {digest: evaluation.row() for digest, evaluation in self.seen.items()}
        self.journal.save(
            {"agent": self.agent.state_dict(), "generator": self.generator.get_state(),
             "seen": seen, "best": best, "leaders": leaders, "first": first,
             **{name: getattr(self, name) for name in SAVED}}
        )  # fmt: skip


def _episode_seed(seed: int, number: int, starts: int) -> int:
    """Return an episode's own seed, whose remainder by `starts` says which start it has."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return own - own % starts + number % starts


def _noted(episode: Episode) -> dict[str, Any]:
    actions = [_plain(step.decision.action) for step in episode.transitions]
    return {"seed": episode.seed, "actions": actions}


def _plain(action: np.ndarray | int) -> torch.Tensor | int:
    return torch.from_numpy(np.array(action)) if isinstance(action, np.ndarray) else int(action)
