"""A budget of a kind that only the table of resources knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget, largest
from gnnrl.graph.cost import cost
from gnnrl.graph.cost_model import AxisCosts, Term, flops
from gnnrl.graph.extract import extract
from gnnrl.graph.resources import RESOURCES, Resource, costs_of
from gnnrl.pruning.expected_cost import ExpectedCost
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import prune
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.layers import LayerSpace
from tests.golden.world import SHAPE, world


def memory(graph):
    """Numbers that all operations write for one image."""
    return AxisCosts(
        Term(
            math.prod(node.shape) // (node.width if node.channels else 1),
            () if node.channels is None else (node.channels,),
            frozenset([node.name]),
        )
        for node in graph.nodes
    )


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setitem(RESOURCES, "memory", Resource(memory))


def test_a_made_up_budget_is_searched_with(made_up):
    given = world()
    budget = Budget(memory=0.6)
    space = ChannelSpace(given.graph, l1(given.network, given.graph), budget)

    def evaluate(plans):
        costs = [cost(given.graph, plan) for plan in plans]
        return [Evaluation(c.flops / 1e6, 0.5, c.flops, c.parameters) for c in costs]

    env = PruningEnv(space, evaluate)
    found = search(env, build_agent("random", env, seed=0), evaluations=6, batch=2, seed=0)
    assert len({row["plan"] for row in found.evaluations}) > 1
    subnet = extract(prune(given.network, given.graph, found.plan), torch.zeros(1, *SHAPE))
    left = memory(subnet).without(()) / memory(given.graph).without(())
    assert 0.5 < left <= 0.6
    assert left == pytest.approx(space.used(found.plan))


def test_a_made_up_budget_is_met_by_layers_and_expected_of_gates(made_up):
    graph = world().graph
    space = LayerSpace(graph, Budget(memory=0.8))
    assert space.used(space.plan(np.zeros(space.size, dtype=bool))) <= 0.8
    expected = ExpectedCost(graph, "memory")
    assert float(expected(torch.ones(graph.num_units))) == memory(graph).without(())


def test_without_an_entry_the_budget_is_refused():
    with pytest.raises(UserError, match="there is no budget 'memory'; known are flops, parameters"):
        Budget(memory=0.5)
    with pytest.raises(UserError, match="a budget of latency needs a latency table"):
        costs_of("latency", world().graph)


def test_lengths_of_numpy_and_of_torch_cost_the_same_and_have_a_gradient():
    costs = flops(world().graph)
    lengths = np.random.default_rng(0).uniform(1, 9, len(costs.axes))
    given = torch.from_numpy(lengths).requires_grad_()
    total = costs.of_lengths(given)
    assert total.item() == pytest.approx(costs.of_lengths(lengths))
    (gradient,) = torch.autograd.grad(total, given)
    step = np.eye(len(lengths))[2] * 1e-4
    slope = (costs.of_lengths(lengths + step) - costs.of_lengths(lengths - step)) / 2e-4
    assert float(gradient[2]) == pytest.approx(slope)


def test_halving_finds_the_largest_number_that_fits():
    low, high = largest(lambda number: number**2 <= 2.0, 0.0, 2.0, steps=40)
    assert low <= math.sqrt(2.0) < high
    assert high - low == pytest.approx(2.0 / 2**40)
