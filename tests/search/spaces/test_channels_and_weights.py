"""Space `channels_and_weights`: channels of convolutions and densities of dense layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided, Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import prune
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace, Widths
from gnnrl.search.spaces.channels_and_weights import ChannelWeightSpace
from tests.dense import dense


def vgg() -> nn.Sequential:
    """Two convolutions and three dense layers, as a small VGG."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4),
        nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def given():
    torch.manual_seed(0)
    network = vgg().eval()
    return network, extract(network, torch.zeros(1, 3, 32, 32))


def space_of(given, budget=0.4, **settings) -> ChannelWeightSpace:
    network, graph = given
    return ChannelWeightSpace(Widths(graph, l1(network, graph), budget, **settings))


def test_any_action_meets_the_budget_of_channels_and_of_weights(given):
    network, graph = given
    space, generator = space_of(given), torch.Generator().manual_seed(0)
    for _ in range(4):
        plan = space.sample(generator)
        subnet = prune(network, graph, plan)
        left = extract(subnet, torch.zeros(1, 3, 32, 32))
        assert 0.34 < cost(left).flops / space.dense.flops <= 0.4
        assert space.used(plan) == pytest.approx(cost(left).flops / space.dense.flops)
        dense = [m.weight for m in subnet.modules() if isinstance(m, nn.Linear)]
        kept = sum(int((w != 0).sum()) for w in dense) / sum(w.numel() for w in dense)
        assert 0.39 < kept <= 0.4
        assert [w.shape[0] for w in dense] == [40, 24, 5]  # their own channels are all kept


def test_the_decisions_are_groups_of_convolutions_then_dense_layers(given):
    space = space_of(given)
    assert space.names == ["0", "3", "7", "9", "11"]
    low, high = np.full(5, 0.5), np.full(5, 0.5)
    low[2], high[2] = 0.1, 0.9
    first, second = space.plan(low), space.plan(high)
    assert first.kept == second.kept
    assert first.weight_sparsity["7"] > second.weight_sparsity["7"]
    assert first.weight_sparsity["9"] < second.weight_sparsity["9"]


def test_without_densities_the_channels_are_those_of_the_space_channels(given):
    network, graph = given
    whole = [name for name in graph.layers if name in ("7", "9", "11")]
    protected = extract(network, torch.zeros(1, 3, 32, 32), protect=whole)
    channels = ChannelSpace(protected, l1(network, protected), 0.4)
    action = np.array([0.3, 0.8, 0.5, 0.5, 0.5])
    every = {name: tuple(range(len(graph.layers[name].filter_units))) for name in ("7", "9")}
    assert space_of(given).plan(action).kept == {**channels.plan(action[:2]).kept, **every}


def test_the_observation_shows_ratios_and_densities_at_their_nodes(given):
    space = space_of(given)
    seen = space.observation()
    assert len(seen.decision_index) == space.size
    keep = np.array([1.0, 1.0, 1.0, 0.25, 1.0])
    changed = (space.observation(keep).x != seen.x).any(1).nonzero().flatten()
    assert changed.tolist() == [int(seen.decision_index[3])]
    shown = space.partly(np.array([0.5]))
    assert int(seen.decision_index[0]) in (shown.x != seen.x).any(1).nonzero().flatten().tolist()


def test_units_of_a_plan_are_found_again_and_steps_end_on_both_budgets(given):
    space = space_of(given)
    decided = space.decide(space.random(torch.Generator().manual_seed(1)))
    assert np.array_equal(decided.units, Decided(decided.plan).units_of(space.graph))
    keep = space.step(None, np.array([0.3, 0.3, 1.0, 1.0, 1.0]))
    assert space.widths.met(space._ratios(keep)) and not space.met(keep)
    assert space.met(space.step(keep, np.array([1.0, 1.0, 0.3, 0.3, 0.3])))
    assert space.used(space.controls()["uniform"]) <= 0.4


def test_what_cannot_be_pruned_like_this_is_refused(given):
    with pytest.raises(UserError, match=r"give budget\.flops or budget\.latency"):
        space_of(given, Budget(parameters=0.5))
    with pytest.raises(UserError, match="cannot be met"):
        space_of(given, 0.001)
    network, graph = dense("resnet20")
    linear = [name for name, node in graph.layers.items() if node.operation == "linear"]
    graph = extract(network, torch.zeros(1, 3, 32, 32), protect=linear)
    with pytest.raises(UserError, match="0 dense layers that can be pruned"):
        space_of((network, graph))


@pytest.mark.parametrize("name, in_turn", [("ppo", True), ("ddpg", True), ("evolution", False)])
def test_agents_search_it(name, in_turn, given):
    space = space_of(given)

    def evaluate(plans):
        return [Evaluation(-plan.weight_sparsity.get("11", 0.0)) for plan in plans]

    env = PruningEnv(space, evaluate, in_turn=in_turn)
    decoder = {"encoder": "encoder_decoder", "hidden": 8}
    settings = {"evolution": {}, "ppo": decoder, "ddpg": {**decoder, "max_updates": 2}}[name]
    found = search(env, build_agent(name, env, seed=0, **settings), evaluations=9, batch=4, seed=0)
    assert space.used(found.plan) <= 0.4 and found.plan.weight_sparsity
    assert {row["steps"] for row in found.evaluations} == {5 if in_turn else 1}
