"""The smallest subnet above an accuracy, and budgets in absolute numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.evaluation.base import Evaluation
from gnnrl.evaluation.rewards import Measured, RewardSettings
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.settings import BudgetSettings
from gnnrl.search.spaces.channels import ChannelSpace

AT_LEAST = 0.9


def measured(accuracy: float, flops_kept: float) -> Measured:
    return Measured(accuracy, 0.0, 0.0, 0.0, 1.0, flops_kept, 1.0)


@pytest.fixture(scope="module")
def graph() -> ComputationalGraph:
    network = build_network("basic_cnn_quarter", 10, (1, 20, 20)).eval()
    graph = extract(network, torch.zeros(1, 1, 20, 20))
    graph.__dict__["importance"] = l1(network, graph)
    return graph


def space_of(graph: ComputationalGraph) -> ChannelSpace:
    return ChannelSpace(graph, graph.__dict__["importance"], Budget(flops=1.0))


def test_a_plan_within_the_budget_is_left_small_where_it_need_not_be_used_up(graph):
    small = np.full(len(graph.groups), 0.3)
    free, filled = space_of(graph).within(), space_of(graph)
    assert free.used(free.plan(small)) < 0.2 < filled.used(filled.plan(small)) == 1.0
    controls = free.controls()
    assert list(controls)[-1] == "uniform 1" and "uniform 0.5" in controls
    assert 0.49 < free.used(controls["uniform 0.5"]) <= 0.5


def test_the_reward_puts_plans_above_the_accuracy_first_and_the_smaller_of_them_before():
    reward = RewardSettings(kind="fewest_flops", at_least=AT_LEAST).function
    plans = [measured(0.5, 0.1), measured(0.89, 0.3), measured(0.99, 0.9), measured(0.9, 0.4)]
    assert sorted(plans, key=reward) == plans


def test_a_search_finds_a_smaller_subnet_above_the_accuracy_than_the_uniform_controls(graph):
    space = space_of(graph).within()
    reward = RewardSettings(kind="fewest_flops", at_least=AT_LEAST).function
    needed = np.array([0.2, 0.9, 0.2, 0.2])  # of the channels, for all of the accuracy

    def evaluate(plans):
        found = []
        for plan in plans:
            kept = space.widths(plan) / space.counts_of_all()
            accuracy = float(np.minimum(kept / needed, 1.0).mean())
            used = cost(graph, plan)
            score = reward(measured(accuracy, used.flops / space.dense.flops))
            found.append(Evaluation(score, accuracy, used.flops, used.parameters))
        return found

    env = PruningEnv(space, evaluate)
    env.controls = env.comparisons()
    agent = build_agent("evolution", env, seed=0)
    found = search(env, agent, evaluations=120, batch=8, seed=0)
    best = max(found.evaluations, key=lambda row: row["reward"])
    control = max(found.controls, key=lambda row: row["reward"])
    assert best["accuracy"] >= AT_LEAST and control["accuracy"] >= AT_LEAST
    assert best["flops"] < 0.8 * control["flops"]


def test_a_number_of_parameters_is_met_exactly(graph):
    whole = cost(graph)
    asked = whole.parameters - 12345
    budget = BudgetSettings(parameters=asked).budget(graph)
    space = ChannelSpace(graph, graph.__dict__["importance"], budget)
    used = cost(graph, space.plan(np.full(space.size, 0.5))).parameters
    assert asked - 600 < used <= asked
    assert BudgetSettings(flops=whole.flops).budget(graph) == Budget(flops=1.0)
    assert BudgetSettings(flops=10 * whole.flops).budget(graph).fraction == 1.0
