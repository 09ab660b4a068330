"""A search between two batches: what was played, what is known of it, what is written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from gnnrl.evaluation.base import Evaluation
from gnnrl.progress import Progress
from gnnrl.rl.agent import Agent, Prepared
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.episodes import StepMap, in_turn, replay, roll_out
from gnnrl.rl.rollout import Episode, Rollout
from gnnrl.search.deferred import bare, is_deferred, lesson, rated
from gnnrl.search.env import Evaluate
from gnnrl.search.journal import Journal

EvaluateMap = Callable[[Evaluate, Sequence[Any]], Iterable[tuple[int, Evaluation]]]
"""Hands plans to the evaluator; yields the place of a plan and its evaluation, as they come."""


@dataclass
class Run:
    """The state of a search between two batches."""

    env: GraphEnv
    agent: Agent
    seed: int
    repeats: int
    journal: Journal | None
    evaluate_map: EvaluateMap
    step_map: StepMap = in_turn
    wanted: int = 1  # leaders that are remembered
    seen: dict[str, Evaluation] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    spent: float = 0.0
    idle: int = 0  # batches without a new plan
    finished: bool = False
    best: Episode | None = None
    leaders: list[Episode] = field(default_factory=list)  # with the best plans, best first
    bar: Progress | None = None
    going: dict[str, Any] = field(default_factory=dict)  # of workers that were not done

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def best_reward(self) -> float:
        """The largest reward so far."""
        return -math.inf if self.best is None else self.best.reward

    def best_plan(self) -> Any:
        """What the best episode decided: its plan, else its actions."""
        assert self.best is not None
        return self.best.info.get("plan", [step.decision.action for step in self.best.transitions])

    def advance(self, size: int) -> None:
        """Play, evaluate and learn from a batch of `size` episodes; write the state down."""
        episodes = self._play(size, greedy=False)
        lessons = tuple(lesson(self.env, episode, len(self.history)) for episode in episodes)
        figures = self.agent.learn(Rollout(lessons, self.best))
        self.learned([episode.reward for episode in episodes], figures)
        self.notice(size)
        self.save()

    def learned(self, rewards: Sequence[float], figures: Mapping[str, float]) -> None:
        """Add an update of the agent, from episodes with these rewards, to the history."""
        self.history.append(
            {"episodes": float(len(self.rows)), "spent": self.spent, "best": self.best_reward,
             "reward": float(np.mean(rewards)), "reward_std": float(np.std(rewards)), **figures}
        )  # fmt: skip

    def notice(self, size: int) -> None:
        """Take note of whether the last `size` episodes brought a new plan."""
        settled = all(row.get("cached", False) for row in self.rows[-size:])
        self.idle = self.idle + 1 if settled else 0

    def start(self) -> None:
        """Play what the agent starts from: its prior, where it has one."""
        self._play(1, greedy=True)
        self.save()

    def finish(self) -> None:
        """Play what the agent thinks best, without learning from it."""
        self._play(1, greedy=True)
        self.finished = True
        self.save()

    def _play(self, size: int, greedy: bool) -> list[Episode]:
        first = len(self.rows)
        seeds = self.seeds(first, size)
        played = roll_out(self.env, self.agent, seeds, self.generator, greedy, self.step_map)
        episodes = self._evaluated(played)
        for episode in episodes:
            self.record(episode)
        return episodes

    def seeds(self, first: int, size: int) -> list[int]:
        """Return what the episodes numbered from `first` on start from."""
        return [_episode_seed(self.seed, (first + i) // self.repeats) for i in range(size)]

    def record(self, episode: Episode) -> None:
        """Add an episode to the rows."""
        evaluation = episode.info.get("evaluation")
        self.spent += 1.0 if evaluation is None else evaluation.cost
        if episode.reward > self.best_reward:
            self.best = bare(episode)
        if evaluation is not None and not evaluation.cached:
            self.leaders = sorted([*self.leaders, bare(episode)], key=lambda e: -e.reward)
            del self.leaders[self.wanted :]
        row: dict[str, Any] = {"episode": len(self.rows), "steps": len(episode.transitions)}
        if evaluation is None:
            row |= {"reward": episode.reward}
        else:
            row |= {"plan": episode.info["plan"].digest, **evaluation.row()}
        self.rows.append(row | {"best": self.best_reward})
        self._show(self.spent, self.best_reward)

    def _show(self, spent: float, best: float) -> None:
        if self.bar is not None and math.floor(spent) > self.bar.done:
            self.bar.advance(min(math.floor(spent), self.bar.total) - self.bar.done, best=best)

    def _evaluated(self, episodes: Sequence[Episode]) -> list[Episode]:
        """Return the episodes with the rewards that were left to the caller filled in."""
        return self.rated(episodes, self._evaluate(self.unknown(episodes)))

    def unknown(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """Return, by digest, the plans of the episodes that have not been evaluated."""
        plans = {e.info["plan"].digest: e.info["plan"] for e in episodes if is_deferred(e)}
        return {digest: plan for digest, plan in plans.items() if digest not in self.seen}

    def rated(self, episodes: Sequence[Episode], fresh: Mapping[str, Evaluation]) -> list[Episode]:
        """Fill in the rewards, from evaluations made for these episodes or earlier."""
        done, fresh = [], dict(fresh)
        for episode in episodes:
            if is_deferred(episode):
                digest = episode.info["plan"].digest
                if digest not in self.seen:
                    evaluation = self.seen[digest] = fresh.pop(digest)
                else:  # another worker may have been first
                    price = fresh.pop(digest).cost if digest in fresh else 0.0
                    evaluation = replace(self.seen[digest].as_cached(), cost=price)
                episode = rated(episode, evaluation)
            done.append(episode)
        return done

    def known(self, digest: str) -> Evaluation | None:
        """Return what a search that was killed wrote down of a plan."""
        return self.journal.known(digest) if self.journal is not None else None

    def _evaluate(self, plans: dict[str, Any]) -> dict[str, Evaluation]:
        """Evaluate the plans that the journal does not know, and write them down."""
        found = {digest: self.known(digest) for digest in plans}
        missing = [digest for digest in plans if found[digest] is None]
        asked = [plans[digest] for digest in missing]
        spent, best = self.spent, self.best_reward
        for place, evaluation in self.evaluate_map(self.env.evaluate, asked) if asked else ():
            found[missing[place]] = evaluation
            self.write(missing[place], evaluation)
            spent, best = spent + evaluation.cost, max(best, evaluation.reward)
            self._show(spent, best)
        if none := [digest for digest, evaluation in found.items() if evaluation is None]:
            raise ValueError(f"{self.env.name}: no evaluation came back for the plan {none[0]}")
        return found

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
        best, leaders = state.pop("best"), state.pop("leaders")
        vars(self).update(state)
        self.best = best and self._replayed(best)
        self.leaders = [self._replayed(leader) for leader in leaders]

    def _replayed(self, noted: Mapping[str, Any]) -> Episode:
        actions = [a.numpy() if isinstance(a, torch.Tensor) else a for a in noted["actions"]]
        (episode,) = self._evaluated([replay(self.env, noted["seed"], actions)])
        return bare(episode)

    def save(self) -> None:
        """Write the state down, if there is a journal."""
        if self.journal is None:
            return
        best, leaders = self.best and _noted(self.best), [_noted(e) for e in self.leaders]
        seen = {digest: evaluation.row() for digest, evaluation in self.seen.items()}
        kept = ("rows", "history", "spent", "idle", "finished", "going")
        self.journal.save(
            {"agent": self.agent.state_dict(), "generator": self.generator.get_state(),
             "seen": seen, "best": best, "leaders": leaders,
             **{name: getattr(self, name) for name in kept}}
        )  # fmt: skip


def _episode_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _noted(episode: Episode) -> dict[str, Any]:
    actions = [_plain(step.decision.action) for step in episode.transitions]
    return {"seed": episode.seed, "actions": actions}


def _plain(action: np.ndarray | int) -> torch.Tensor | int:
    return torch.from_numpy(np.array(action)) if isinstance(action, np.ndarray) else int(action)
