"""What ships is the best plan that is known, be it a control's; the agent's gain stays as it is."""

from __future__ import annotations

import dataclasses

import pytest

from gnnrl.agents.registry import build_agent
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.cost import cost
from gnnrl.pruning.importance import l1
from gnnrl.search import results
from gnnrl.search.controls import kept_control, with_controls
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import SearchResult, search
from gnnrl.search.spaces.channels import ChannelSpace
from tests.search import test_budgets
from tests.search.test_budgets import GRAPH, NETWORK


def result(good: bool, leaders: int = 3) -> tuple[SearchResult, PruningEnv]:
    """A search whose one control is the best plan there is, or the worst."""
    space = ChannelSpace(GRAPH, l1(NETWORK, GRAPH), 0.5)
    control, given = space.controls()["uniform"], 9.0 if good else -9.0

    def rate(plans):
        return [
            Evaluation(given if plan == control else int(plan.digest[:4], 16) / 1e5)
            for plan in plans
        ]

    env = PruningEnv(space, rate)
    env.controls = {"uniform": control}
    agent = build_agent("random", env, seed=0)
    return search(env, agent, evaluations=30, batch=8, seed=0, leaders=leaders), env


def test_a_control_that_is_better_is_kept_and_the_gain_says_so():
    found, env = result(good=True)
    own = max(row["reward"] for row in found.evaluations)
    kept = with_controls(found, env)
    assert kept.plan == env.controls["uniform"] and kept.reward == 9.0
    assert kept_control(kept) == "uniform"
    figures = results.summary(GRAPH, kept, 0.0)
    assert figures["plan_of"] == "uniform" and figures["reward"] == 9.0
    assert figures["gain_over_uniform"] == pytest.approx(own - 9.0)
    assert figures["flops_kept"] == cost(GRAPH, kept.plan).flops / cost(GRAPH).flops
    assert "the plan of uniform" in results.told(figures)


def test_a_control_that_is_worse_changes_nothing():
    found, env = result(good=False)
    assert with_controls(found, env) == found
    figures = results.summary(GRAPH, found, 0.0)
    assert figures["plan_of"] == "search" and figures["gain_over_uniform"] > 9
    assert "the plan of" not in results.told(figures)


@pytest.mark.parametrize("leaders", [1, 2, 4])
def test_a_second_look_sees_it_and_as_many_plans_as_were_paid_for(leaders):
    found, env = result(good=True, leaders=leaders)
    kept = with_controls(found, env)
    assert len(kept.leaders) == len(found.leaders) == leaders
    assert kept.leaders[0] == (env.controls["uniform"], 9.0)
    if leaders > 1:
        assert kept.leaders[1] == found.leaders[0]
    if leaders > 2:
        assert kept.leaders[-1] == found.leaders[-1], "what the search started from"


def test_a_front_has_the_better_plan_of_every_budget():
    env = test_budgets.Pruning()
    env.controls = env.comparisons()
    found = test_budgets.run(env=env)
    better = "uniform at 0.3"
    rows = [
        {**row, **Evaluation(9.0).row()} if row["control"] == better else {**row, "reward": -9.0}
        for row in found.controls
    ]
    changed = with_controls(dataclasses.replace(found, controls=rows), env)
    assert found.front is not None and changed.front is not None
    assert changed.front.plan_for(GRAPH, 0.3) == env.controls[better]
    assert changed.front.plan_for(GRAPH, 0.7) == found.front.plan_for(GRAPH, 0.7)
    assert changed.plan == found.plan
