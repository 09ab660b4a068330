"""The search: roll out a batch of episodes, evaluate what they decided, learn, keep the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.progress import Progress
from gnnrl.progress import progress as progress_bar
from gnnrl.search.agents.agent import Agent, Prepared
from gnnrl.search.env import Evaluate, GraphEnv
from gnnrl.search.episodes import bare, is_deferred, rated, replay, roll_out
from gnnrl.search.journal import Journal
from gnnrl.search.reward import Evaluation
from gnnrl.search.rollout import Episode, Rollout

PATIENCE = 3  # batches without one new plan after which the agent is taken to have settled

EvaluateMap = Callable[[Evaluate, Sequence[Any]], Iterable[Evaluation]]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    plan: of the best episode: `info["plan"]`, else its actions.  reward: of that episode.
    evaluations: a row per episode, in order.  history: a row per update of the agent.
    """

    plan: Any
    reward: float
    evaluations: list[dict[str, Any]]
    agent: Agent
    history: list[dict[str, float]]


def one_by_one(evaluate: Evaluate, plans: Sequence[Any]) -> Iterable[Evaluation]:
    """Evaluate plans one after the other: a killed search loses one evaluation at most."""
    for plan in plans:
        yield from evaluate([plan])


def together(evaluate: Evaluate, plans: Sequence[Any]) -> Iterable[Evaluation]:
    """Evaluate the plans of a batch in one call, for an evaluator that races or shares them out."""
    return evaluate(plans)


def search(
    env: GraphEnv,
    agent: Agent,
    *,
    evaluations: int,
    batch: int = 16,
    seed: int = 0,
    repeats: int = 1,
    journal: Path | None = None,
    progress: bool = False,
    evaluate_map: EvaluateMap | None = None,
) -> SearchResult:
    """Search with `agent` in `env` until the evaluations are used up; deterministic given `seed`.

    evaluations: what may be spent, in evaluation equivalents; a plan evaluated before costs
    nothing. Where the environment has no plans to be evaluated, every episode counts as one. The
    first and the last are the agent's greedy decision, so that a search ends at least where the
    agent started; nothing is learned from these two.
    batch: episodes between two updates of the agent.  repeats: how many neighbouring episodes
    start from the same seed.  journal: a folder; a search that is killed and called again with the
    same arguments goes on from there and ends as if it had not been killed.
    evaluate_map: how plans are handed to the evaluator: one by one, together where it races them.
    """
    for name, value in (("evaluations", evaluations), ("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise UserError(f"{name} {value}: a search needs at least 1")
    if evaluate_map is None:
        races = getattr(getattr(env, "evaluate", None), "races", False)
        evaluate_map = together if races else one_by_one
    settings = {"env": env.name, "agent": type(agent).__name__, "seed": seed, "batch": batch,
                "repeats": repeats, "evaluations": evaluations}  # fmt: skip
    written = Journal(journal, settings) if journal is not None else None
    run = _Search(env, agent, seed, repeats, written, evaluate_map)
    run.resume()
    done = min(math.floor(run.spent), evaluations)
    with progress_bar("search", evaluations, done=done, visible=progress) as run.bar:
        if not run.rows and run.spent < evaluations - 1:
            run.start()
        while run.spent < evaluations - 1 and run.idle < PATIENCE and not run.finished:
            run.advance(min(batch, math.ceil(evaluations - 1 - run.spent)))
        if not run.finished:
            run.finish()
    return SearchResult(run.best_plan(), run.best_reward, run.rows, agent, run.history)


@dataclass
class _Search:
    """The state of a search between two batches."""

    env: GraphEnv
    agent: Agent
    seed: int
    repeats: int
    journal: Journal | None
    evaluate_map: EvaluateMap
    seen: dict[str, Evaluation] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    spent: float = 0.0
    idle: int = 0  # batches without a new plan
    finished: bool = False
    best: Episode | None = None
    bar: Progress | None = None

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def best_reward(self) -> float:
        return -math.inf if self.best is None else self.best.reward

    def best_plan(self) -> Any:
        assert self.best is not None
        return self.best.info.get("plan", [step.decision.action for step in self.best.transitions])

    def advance(self, size: int) -> None:
        """Play, evaluate and learn from a batch of `size` episodes; write the state down."""
        episodes = self._play(size, greedy=False)
        figures = self.agent.learn(Rollout(tuple(episodes), self.best))
        rewards = [episode.reward for episode in episodes]
        self.history.append(
            {"episodes": float(len(self.rows)), "spent": self.spent, "best": self.best_reward,
             "reward": float(np.mean(rewards)), "reward_std": float(np.std(rewards)), **figures}
        )  # fmt: skip
        settled = all(row.get("cached", False) for row in self.rows[-size:])
        self.idle = self.idle + 1 if settled else 0
        self._save()

    def start(self) -> None:
        """Play what the agent starts from: its prior, where it has one."""
        self._play(1, greedy=True)
        self._save()

    def finish(self) -> None:
        """Play what the agent thinks best, without learning from it."""
        self._play(1, greedy=True)
        self.finished = True
        self._save()

    def _play(self, size: int, greedy: bool) -> list[Episode]:
        first = len(self.rows)
        seeds = [_episode_seed(self.seed, (first + i) // self.repeats) for i in range(size)]
        played = roll_out(self.env, self.agent, seeds, self.generator, greedy)
        episodes = self._evaluated(played)
        for episode in episodes:
            self._record(episode)
        return episodes

    def _record(self, episode: Episode) -> None:
        evaluation = episode.info.get("evaluation")
        self.spent += 1.0 if evaluation is None else evaluation.cost
        if episode.reward > self.best_reward:
            self.best = bare(episode)
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
        waiting = {e.info["plan"].digest: e.info["plan"] for e in episodes if is_deferred(e)}
        fresh = self._evaluate({d: plan for d, plan in waiting.items() if d not in self.seen})
        done = []
        for episode in episodes:
            if is_deferred(episode):
                digest = episode.info["plan"].digest
                evaluation = fresh.pop(digest, None) or self.seen[digest].as_cached()
                self.seen.setdefault(digest, evaluation)
                episode = rated(episode, evaluation)
            done.append(episode)
        return done

    def _evaluate(self, plans: dict[str, Any]) -> dict[str, Evaluation]:
        """Evaluate the plans that the journal does not know, and write them down."""
        known = self.journal.known if self.journal is not None else lambda digest: None
        found = {digest: known(digest) for digest in plans}
        missing = {digest: plan for digest, plan in plans.items() if found[digest] is None}
        results = self.evaluate_map(self.env.evaluate, list(missing.values())) if missing else ()
        spent, best = self.spent, self.best_reward
        for digest, evaluation in zip(missing, results, strict=True):
            found[digest] = evaluation
            if self.journal is not None:
                self.journal.add(digest, evaluation)
            spent, best = spent + evaluation.cost, max(best, evaluation.reward)
            self._show(spent, best)
        return found

    def resume(self) -> None:
        """Go on from the journal; where there is nothing, let the agent get ready."""
        state = self.journal.load() if self.journal is not None else None
        if state is None:
            self.spent = self.env.spent
            if isinstance(self.agent, Prepared):
                self.spent += self.agent.prepare(self.env)
            self._save()
            return
        self.agent.load_state_dict(state.pop("agent"))
        self.generator.set_state(state.pop("generator"))
        self.seen = {d: Evaluation.from_row(row) for d, row in state.pop("seen").items()}
        best = state.pop("best")
        vars(self).update(state)
        if best is not None:
            actions = [a.numpy() if isinstance(a, torch.Tensor) else a for a in best["actions"]]
            (episode,) = self._evaluated([replay(self.env, best["seed"], actions)])
            self.best = bare(episode)

    def _save(self) -> None:
        if self.journal is None:
            return
        best = self.best and {
            "seed": self.best.seed,
            "actions": [_plain(step.decision.action) for step in self.best.transitions],
        }
        seen = {digest: evaluation.row() for digest, evaluation in self.seen.items()}
        kept = ("rows", "history", "spent", "idle", "finished")
        self.journal.save(
            {"agent": self.agent.state_dict(), "generator": self.generator.get_state(),
             "seen": seen, "best": best, **{name: getattr(self, name) for name in kept}}
        )  # fmt: skip


def _episode_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _plain(action: np.ndarray | int) -> torch.Tensor | int:
    return torch.from_numpy(np.array(action)) if isinstance(action, np.ndarray) else int(action)
