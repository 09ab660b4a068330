"""The search: roll out a batch of episodes, evaluate what they decided, learn, keep the best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.progress import progress as progress_bar
from gnnrl.rl.agent import Agent
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.episodes import in_turn
from gnnrl.search.env import Evaluate
from gnnrl.search.journal import Journal
from gnnrl.search.parallel.asynchronous import Asynchronous, AsynchronousSearch
from gnnrl.search.parallel.workers import Workers, evaluate_on, step_on
from gnnrl.search.state import EvaluateMap, Run

PATIENCE = 3  # batches without one new plan after which the agent is taken to have settled


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    plan: of the best episode: `info["plan"]`, else its actions.  reward: of that episode.
    evaluations: a row per episode, in order.  history: a row per update of the agent.
    leaders: the best plans with their rewards, best first.  rescored: what a second look at them
    on other images said, a row per plan.
    """

    plan: Any
    reward: float
    evaluations: list[dict[str, Any]]
    agent: Agent
    history: list[dict[str, float]]
    leaders: tuple[tuple[Any, float], ...] = ()
    rescored: list[dict[str, Any]] = field(default_factory=list)


def one_by_one(evaluate: Evaluate, plans: Sequence[Any]) -> Iterator[tuple[int, Evaluation]]:
    """Evaluate plans one after the other: a killed search loses one evaluation at most."""
    for place, plan in enumerate(plans):
        (evaluation,) = evaluate([plan])
        yield place, evaluation


def together(evaluate: Evaluate, plans: Sequence[Any]) -> Iterator[tuple[int, Evaluation]]:
    """Evaluate the plans of a batch in one call, for an evaluator that races or shares them out."""
    yield from enumerate(evaluate(plans))


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
    progress: bool = False,
    evaluate_map: EvaluateMap | None = None,
    workers: Workers | None = None,
) -> SearchResult:
    """Search with `agent` in `env` until the evaluations are used up; deterministic given `seed`.

    evaluations: what may be spent, in evaluation equivalents; a plan evaluated before costs
    nothing. Where the environment has no plans to be evaluated, every episode counts as one. The
    first and the last are the agent's greedy decision, so that a search ends at least where the
    agent started; nothing is learned from these two.
    batch: episodes between two updates of the agent.  repeats: how many neighbouring episodes
    start from the same seed.  leaders: how many of the best plans are returned.
    journal: a folder; a search that is killed and called again with the same arguments goes on
    from there and ends as if it had not been killed.
    evaluate_map: how plans are handed to the evaluator: one by one, together where it races them.
    workers: who evaluates, with copies of `Shared(env, agent)`; with none this process does. Where
    the environment has no plans they take its steps. How many there are changes nothing but the
    time, unless the agent is asynchronous: then each of them acts and learns at its own pace.
    """
    for name, value in (("evaluations", evaluations), ("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise UserError(f"{name} {value}: a search needs at least 1")
    if evaluate_map is None:
        races = getattr(getattr(env, "evaluate", None), "races", False)
        evaluate_map = together if races else one_by_one
        evaluate_map = evaluate_map if workers is None else partial(evaluate_on, workers)
    remote = workers is not None and not hasattr(env, "deferred")
    step_map = partial(step_on, workers) if remote else in_turn
    settings = {"env": env.name, "agent": type(agent).__name__, "seed": seed, "batch": batch,
                "repeats": repeats, "evaluations": evaluations}  # fmt: skip
    written = Journal(journal, settings) if journal is not None else None
    run = Run(env, agent, seed, repeats, written, evaluate_map, step_map, leaders)
    run.resume()
    done = min(math.floor(run.spent), evaluations)
    with progress_bar("search", evaluations, done=done, visible=progress) as run.bar:
        if not run.rows and run.spent < evaluations - 1:
            run.start()
        if workers is not None and isinstance(agent, Asynchronous) and not run.finished:
            AsynchronousSearch(run, workers, batch, evaluations).play()
        else:
            _in_batches(run, batch, evaluations)
        if not run.finished:
            run.finish()
    best = tuple((episode.info["plan"], episode.reward) for episode in run.leaders)
    return SearchResult(run.best_plan(), run.best_reward, run.rows, agent, run.history, best)


def _in_batches(run: Run, batch: int, evaluations: int) -> None:
    while run.spent < evaluations - 1 and run.idle < PATIENCE and not run.finished:
        run.advance(min(batch, math.ceil(evaluations - 1 - run.spent)))
