"""Controls: plans that need no search. One that is better than all found plans is what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gnnrl.evaluation.base import Decided
from gnnrl.search.budgets import AT, BudgetsEnv
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import SearchResult

Rows = dict[str, dict[str, Any]]


def of_budget(controls: Iterable[Mapping[str, Any]], budget: str = "") -> Rows:
    """Return the rows of the controls by name; budget: of another budget than the one asked for."""
    named = [(row["control"].partition(AT), dict(row)) for row in controls]
    return {name: row for (name, _, other), row in named if other == budget}


def kept_control(found: SearchResult) -> str:
    """Return the name of the control whose plan a result has; empty: the search found it itself."""
    digest = found.plan.digest
    if any(row["plan"] == digest for row in found.evaluations):
        return ""
    return next(n for n, row in of_budget(found.controls).items() if row["plan"] == digest)


def with_controls(found: SearchResult, env: PruningEnv) -> SearchResult:
    """Return the result with a control's plan, at each budget, where its reward is better."""
    plan, reward, leaders, front = found.plan, found.reward, found.leaders, found.front
    if not found.controls:
        return found
    if front is not None and isinstance(env, BudgetsEnv):
        plans = [front.plan_for(space.graph, float(space.budget.value), space.table)
                 for space in env.spaces]  # fmt: skip
        for start, space in enumerate(env.spaces):
            budget = float(space.budget.value)
            own = max(r["reward"] for r in found.evaluations if r["budget"] == budget)
            if better := _better(found, own, f"{budget:g}" if start else "", env):
                plans[start] = better[0]
        front = env.front(plans)
    if better := _better(found, reward, "", env):
        plan, reward = better
        # of several, the last one is the plan that the search started from
        others = leaders if len(leaders) < 3 else (*leaders[:-2], leaders[-1])
        leaders = (better, *others)[: len(leaders)]
    return replace(found, plan=plan, reward=reward, leaders=leaders, front=front)


def _better(
    found: SearchResult, reward: float, budget: str, env: PruningEnv
) -> tuple[Any, float] | None:
    """Return the best control's plan and reward, where that is above the search's."""
    rows = of_budget(found.controls, budget)
    best = max(rows.values(), key=lambda row: row["reward"], default=None)
    if best is None or best["reward"] <= reward:
        return None
    return Decided.of(env.controls[best["control"]]).plan, best["reward"]
