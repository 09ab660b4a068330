"""The agents that are controls: a solver over measured errors, evolution by switches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gnnrl.agents.knapsack import knapsack
from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.importance import l1
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense
from tests.rl.toys import Target


class Curves:
    """Evaluations by the sum of what each group loses, by its curve."""

    def __init__(self, space, curves):
        self.space, self.curves = space, curves

    def __call__(self, plans):
        return [Evaluation(-self.loss(plan), accuracy=0.5) for plan in plans]

    def loss(self, plan):
        keep = kept_units(self.space.graph, plan.kept)
        gone = {
            g.name: int((~keep[g.start : g.start + g.size]).sum()) for g in self.space.graph.groups
        }
        return sum(float(self.curves[name][count]) for name, count in gone.items())


@pytest.fixture(scope="module")
def measured():
    network, graph = dense("resnet20")
    draw = torch.Generator().manual_seed(0)
    curves = {
        g.name: torch.cat([torch.zeros(1), torch.rand(g.size, generator=draw).sort().values])
        .cumsum(0) * torch.rand(1, generator=draw)
        for g in graph.groups
    }  # fmt: skip
    return graph, l1(network, graph), curves


@pytest.fixture(scope="module", params=["none", "reconstruction"])
def space(measured, request):
    graph, importance, curves = measured
    prior = None if request.param == "none" else request.param
    return ChannelSpace(graph, importance, 0.33, curves=curves, prior=prior)


def found(name, space, curves, evaluations, **options):
    env = PruningEnv(space, Curves(space, curves))
    return search(env, build_agent(name, env), evaluations=evaluations, batch=4, **options)


def test_dynamic_programming_finds_the_least_sum_of_errors_within_the_limit():
    draw = np.random.default_rng(0)
    errors, costs = draw.random((4, 5)), draw.integers(1, 9, (4, 5)).astype(float)
    best = min(
        (sum(e[i] for e, i in zip(errors, levels, strict=True)), levels)
        for levels in itertools.product(range(5), repeat=4)
        if sum(c[i] for c, i in zip(costs, levels, strict=True)) <= 14
    )
    assert tuple(knapsack(errors, costs, 14.0)) == best[1]


def test_the_cheapest_levels_are_taken_where_the_limit_cannot_be_met():
    assert knapsack(np.zeros((2, 2)), np.array([[3.0, 2.0], [1.0, 4.0]]), 1.0).tolist() == [1, 0]


def test_costs_of_the_menu_are_those_of_the_graph(space):
    menu = space.menu()
    for column in range(0, menu.removed.shape[1], 7):
        x = menu.removed[:, column].numpy()
        counts = np.round(space._sizes * (1 - x)).astype(int)
        assert menu.cost(x) == pytest.approx(space.costs.cost(counts), rel=1e-9)


def test_its_first_plan_loses_less_than_the_greedy_allocation_and_uses_the_budget(space, measured):
    result = found("solver", space, measured[2], 3)
    first = -result.evaluations[0]["reward"]
    assert first < Curves(space, measured[2]).loss(space.controls()["allocation"])
    assert 0.99 < space.used(result.plan) / 0.33 <= 1


def test_a_solver_that_is_killed_goes_on_to_the_same_end(space, measured, tmp_path):
    whole = found("solver", space, measured[2], 9, journal=tmp_path)
    again = found("solver", space, measured[2], 9, journal=tmp_path)
    assert again.evaluations == whole.evaluations and again.plan == whole.plan


def test_a_solver_without_measured_errors_is_refused(measured):
    graph, importance, _ = measured
    plain = PruningEnv(ChannelSpace(graph, importance, 0.5), lambda plans: [])
    for env in (plain, Target("continuous")):
        with pytest.raises(UserError, match=r"was not measured: set search\.prior to"):
            search(env, build_agent("solver", env), evaluations=5)


def test_switches_improve_on_where_they_started(space, measured):
    result = found("evopress", space, measured[2], 60)
    assert result.reward > result.evaluations[0]["reward"]
    parents = [row["best"] for row in result.history]
    assert parents == sorted(parents)


def test_a_switch_gives_to_one_decision_what_it_takes_from_another(space, measured):
    agent = build_agent("evopress", PruningEnv(space, Curves(space, measured[2])), switches=1)
    start = torch.full((space.size,), 0.5)
    change = agent.switched(start, torch.Generator().manual_seed(1)) - start
    assert int((change != 0).sum()) == 2 and float(change.sum()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["solver", "evopress"])
def test_other_actions_are_refused(name):
    with pytest.raises(UserError, match=f"{name} decides how much .* got binary actions"):
        build_agent(name, Target("binary"))
