"""The search: play a batch of episodes, evaluate what they decided, learn, keep the best.

    play(1, greedy)                       what the agent starts from: its prior
    until the evaluations are used up:
        episodes = play(batch)            act, evaluate, record
        learn(episodes)                   one update of the agent
    play(1, greedy)                       what the agent has learned

`SearchState` holds what is known between two batches; with a journal it is written down after each,
and every evaluation as soon as it is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided, Evaluation, Plan
from gnnrl.progress import progress as progress_bar
from gnnrl.rl.agent import Agent
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.episodes import in_turn, roll_out
from gnnrl.rl.rollout import Episode, Rollout
from gnnrl.search.env import PruningEnv
from gnnrl.search.front import Front
from gnnrl.search.journal import Journal
from gnnrl.search.parallel.asynchronous import Asynchronous, AsynchronousSearch
from gnnrl.search.parallel.workers import Workers, evaluations_of, step_on
from gnnrl.search.state import SearchState
from gnnrl.search.watched import Watched

PATIENCE = 3  # batches without one new plan after which the agent is taken to have settled


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    plan: of the best episode: `info["plan"]`, else its actions.  reward: of that episode.
    evaluations: a row per episode, in order.  history: a row per update of the agent.
    leaders: the best plans with their rewards, best first.  rescored: their rewards on other
    images, a row per plan.  controls: a row per plan that was evaluated for comparison.
    front: the best plan of every budget, where there are several.
    """

    plan: Any
    reward: float
    evaluations: list[dict[str, Any]]
    agent: Agent
    history: list[dict[str, float]]
    leaders: tuple[tuple[Any, float], ...] = ()
    rescored: list[dict[str, Any]] = field(default_factory=list)
    controls: list[dict[str, Any]] = field(default_factory=list)
    front: Front | None = None


def search(
    env: GraphEnv,
    agent: Agent,
    *,
    evaluations: int,
    batch: int = 16,
    seed: int = 0,
    repeats: int = 1,
    leaders: int = 1,
    journal: Path | None = None,
    progress: bool | Watched = False,
    workers: Workers | None = None,
) -> SearchResult:
    """Search with `agent` in `env` until the evaluations are used up; deterministic given `seed`.

    evaluations: what may be spent, in evaluation equivalents; a plan evaluated before costs
    nothing. Where the environment has no plans to be evaluated, every episode counts as one. The
    first and the last are the agent's greedy decision, so that the result is never worse than the
    agent's prior; nothing is learned from these two.
    batch: episodes between two updates of the agent.  repeats: how many neighbouring episodes
    start from the same seed.  leaders: how many of the best plans are returned; of several, one is
    the first decision.
    journal: a folder; a search that is killed and called again with the same arguments goes on
    from there and ends as if it had not been killed.
    workers: who evaluates, with copies of `Shared(env, agent)`; with none this process does. Where
    the environment has no plans they take its steps. How many there are changes nothing but the
    time, unless the agent is asynchronous: then each of them acts and learns at its own pace.
    progress: show a bar; `Watched` also writes figures down and keeps agents.
    `env.controls` are evaluated first and charged for, to compare with; the agent does
    not learn from them, and a plan of its own that equals one of them costs nothing.
    Where the environment has several `starts`, such as budgets, episodes take them in turn and the
    greedy decisions are made for all of them; plan, reward and leaders are those of the first.
    """
    for name, value in (("evaluations", evaluations), ("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise UserError(f"{name} {value}: a search needs at least 1")
    settings = {"env": env.name, "agent": type(agent).__name__, "seed": seed, "batch": batch,
                "repeats": repeats, "evaluations": evaluations}  # fmt: skip
    controls = env.controls
    settings |= {"controls": list(controls)} if controls else {}
    threshold = env.reward_threshold
    settings |= {} if threshold is None else {"reward_threshold": threshold}
    written = Journal(journal, settings) if journal is not None else None
    state = SearchState(env, agent, seed, repeats, written, leaders)
    state.resume()
    if isinstance(progress, Watched):
        progress.begin(len(state.rows))
        state.watched = progress
    done = min(math.floor(state.spent), evaluations)
    if not state.rows and not state.controls:
        state.refuse_too_few(evaluations, len(controls))
    shown = progress is not False
    with progress_bar("search", evaluations, done=done, visible=shown) as state.bar:
        if controls and not state.controls:
            compare(state, controls, workers)
            state.save()
        if not state.rows and state.affordable(evaluations) >= env.starts:
            state.begin(play(state, env.starts, workers, greedy=True))
            state.save()
        if workers is not None and isinstance(agent, Asynchronous) and not state.finished:
            AsynchronousSearch(state, workers, batch, evaluations).play()
        while not (state.finished or state.solved) and state.idle < PATIENCE:
            size = min(batch, state.affordable(evaluations))
            if not size:
                break
            learn(state, play(state, size, workers))
            state.save()
        if not state.finished:
            play(state, env.starts, workers, greedy=True)
            state.finished = True
            state.save()
    if state.watched is not None:
        state.watched.close()
    best = [state.leading(start) for start in range(env.starts)]
    front = env.front([plans[0][0] for plans in best]) if all(best) else None
    return SearchResult(
        state.best_plan(), state.best_reward, state.rows, agent, state.history, best[0],
        controls=state.controls, front=front,
    )  # fmt: skip


def decided(env: GraphEnv, agent: Agent, seed: int) -> SearchResult:
    """Return what the agent decides greedily, for every start, without an evaluation."""
    generator = torch.Generator().manual_seed(seed)
    episodes = roll_out(env, agent, range(env.starts), generator, greedy=True)
    plans = [episode.info["plan"] for episode in episodes]
    return SearchResult(plans[0], math.nan, [], agent, [], front=env.front(plans))


def compare(state: SearchState, controls: Mapping[str, Plan], workers: Workers | None) -> None:
    """Evaluate the controls, one by one, so that they do not race with each other."""
    for name, plan in controls.items():
        decided = Decided.of(plan)
        for digest, evaluation in evaluate(state, {decided.plan.digest: decided}, workers).items():
            state.record_control(name, digest, evaluation)


def play(
    state: SearchState, size: int, workers: Workers | None, greedy: bool = False
) -> list[Episode]:
    """Play `size` episodes at the same time, evaluate their plans, add them to the rows."""
    remote = None if isinstance(state.env, PruningEnv) else workers
    step_map = in_turn if remote is None else partial(step_on, remote)
    seeds = state.seeds(len(state.rows), size)
    played = roll_out(state.env, state.agent, seeds, state.generator, greedy, step_map)
    episodes = state.rewarded(played, evaluate(state, state.unknown(played), workers))
    for episode in episodes:
        state.record(episode)
    return episodes


def evaluate(
    state: SearchState, plans: Mapping[str, Decided], workers: Workers | None
) -> dict[str, Evaluation]:
    """Evaluate the plans that the journal does not know, and write them down as they come."""
    found = {digest: state.known(digest) for digest in plans}
    missing = [digest for digest in plans if found[digest] is None]
    if missing:
        asked, spent, best = [plans[digest] for digest in missing], state.spent, state.best_reward
        for place, evaluation in evaluations_of(state.evaluator, asked, workers):
            found[missing[place]] = evaluation
            state.write(missing[place], evaluation)
            spent, best = spent + evaluation.cost, max(best, evaluation.reward)
            state.show(spent, best)
    known = {digest: evaluation for digest, evaluation in found.items() if evaluation is not None}
    if none := found.keys() - known.keys():
        raise ValueError(f"{state.env.name}: no evaluation came back for the plan {min(none)}")
    return known


def learn(state: SearchState, episodes: list[Episode]) -> None:
    """Let the agent learn from a batch of episodes; note it in the history."""
    figures = state.agent.learn(Rollout(tuple(state.lessons(episodes)), state.best))
    state.learned([episode.reward for episode in episodes], figures)
    state.notice(len(episodes))
