"""The channel space: every action is a plan, none is over budget, none wastes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.group_costs import GroupCosts
from gnnrl.graph.latency import POINTS, LatencyTable
from gnnrl.graph.resources import costs_of
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense
from tests.measurement.test_latency_table import made_up

NAMES = ["resnet20", "basic_cnn", "mobilenet_v2"]


def space_of(name: str, budget: Budget | float = 0.5, **options: object) -> ChannelSpace:
    network, graph = dense(name)
    return ChannelSpace(graph, l1(network, graph), budget, **options)


@pytest.fixture(scope="module")
def resnet20() -> ChannelSpace:
    return space_of("resnet20")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resource", ["flops", "parameters"])
@pytest.mark.parametrize("fraction", [0.2, 0.9])
def test_random_plans_use_up_the_budget_and_never_exceed_it(name, resource, fraction):
    space = space_of(name, Budget(**{resource: fraction}))
    generator = torch.Generator().manual_seed(0)
    dense = getattr(cost(space.graph), resource)
    for _ in range(10):
        kept = getattr(cost(space.graph, space.sample(generator)), resource) / dense
        assert 0.99 * fraction <= kept <= fraction


def _violations(space: ChannelSpace, decisions: int, seed: int) -> int:
    """Decisions, of every shade, whose counts are over budget or leave a group empty."""
    random = np.random.default_rng(seed)
    flops = GroupCosts(space.graph, space.order, costs_of("flops", space.graph))
    wrong = 0
    for i in range(decisions):
        action = random.random(space.size) ** random.choice([0.2, 1.0, 5.0])
        if i % 10 == 0:
            action = (action > 0.5).astype(float)
        counts = space.counts(action)
        over = flops.cost(counts) > 0.5 * space.dense.flops
        wrong += bool(over or (counts < 1).any())
    return wrong


def test_no_decision_is_over_budget_or_empties_a_layer(resnet20):
    assert _violations(resnet20, 1500, seed=0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet56", "vgg16_bn", "mobilenet_v2"])
def test_none_of_25000_decisions_is_over_budget_or_empties_a_layer(name):
    assert _violations(space_of(name), 25_000, seed=1) == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_cost_is_the_cost_of_the_plan(name):
    space = space_of(name)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        counts = space.counts(space.random(generator))
        exact = cost(space.graph, space.plan_of(counts))
        for resource in ("flops", "parameters"):
            fast = GroupCosts(space.graph, space.order, costs_of(resource, space.graph))
            assert fast.cost(counts) == getattr(exact, resource)


def test_only_the_proportions_of_an_action_matter(resnet20):
    action = np.linspace(0.2, 0.4, resnet20.size)
    assert resnet20.plan(action) == resnet20.plan(2 * action)


def test_the_most_important_channels_stay():
    network, graph = dense("basic_cnn")
    scores = l1(network, graph)
    plan = ChannelSpace(graph, scores, 0.5).uniform()
    for group in graph.groups:
        kept = list(plan.kept[group.name])
        lost = sorted(set(range(group.size)) - set(kept))
        assert scores[group.name][kept].min() >= scores[group.name][lost].max()


def test_a_budget_of_one_keeps_everything():
    space = space_of("basic_cnn", 1.0)
    assert cost(space.graph, space.uniform()) == cost(space.graph)


def test_widths_are_rounded_to_a_multiple_and_the_floor_is_kept():
    space = space_of("resnet20", 0.5, multiple=8, min_channels=8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        counts = space.counts(space.random(generator))
        assert (counts % 8 == 0).all()
        assert (counts >= 8).all()


def test_steps_cut_further_until_the_budget_is_met(resnet20):
    keep, action = None, np.full(resnet20.size, 0.8)
    for _ in range(5):
        after = resnet20.step(keep, action)
        assert keep is None or (after <= keep).all()
        keep = after
        if resnet20.met(keep):
            break
    assert resnet20.met(keep)


def test_a_latency_budget_is_met_by_the_table():
    network, graph = dense("basic_cnn")
    table = made_up(graph)
    space = ChannelSpace(graph, l1(network, graph), Budget(latency=0.6), table=table)
    assert 0.9 * 0.6 <= space.used(space.uniform()) <= 0.6
    again = ChannelSpace(graph, l1(network, graph), Budget(latency=0.6), table=table)
    assert again.uniform() == space.uniform()


def test_a_latency_table_reads_back_what_it_wrote(tmp_path):
    rows = tuple(tuple(float(i + j) for j in range(POINTS)) for i in range(POINTS))
    table = LatencyTable({"conv": rows}, 4, "test")
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"flops": 0.0}, r"budget.flops must be in \(0, 1\].* got 0.0"),
        ({"flops": 1.5}, "got 1.5"),
        ({"flops": 0.5, "sparsity": 0.5}, "sparsity alone, got flops, sparsity"),
        ({}, "got none"),
        ({"flpos": 0.5}, r"no budget 'flpos'; did you mean flops\?"),
        ({"flops": True}, "got True"),
    ],
)
def test_nonsense_budgets_are_refused(budget, message):
    with pytest.raises(UserError, match=message):
        Budget(**budget)


def test_a_budget_below_what_the_network_can_reach_is_refused():
    with pytest.raises(UserError, match=r"cannot be met: .* of the dense network remains"):
        space_of("resnet20", 0.001)


def test_a_latency_budget_without_a_table_is_refused():
    with pytest.raises(UserError, match="needs a latency table"):
        space_of("basic_cnn", Budget(latency=0.5))


def test_sampling_is_reproducible(resnet20):
    first = resnet20.sample(torch.Generator().manual_seed(5))
    assert isinstance(first, PruningPlan)
    assert first == resnet20.sample(torch.Generator().manual_seed(5))
    assert first != resnet20.sample(torch.Generator().manual_seed(6))


def test_no_operation_is_left_without_a_channel_where_a_split_reads_part_of_a_group():
    space = space_of("shufflenet_v2", 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert cost(space.graph, space.sample(generator)).flops <= 0.05 * space.dense.flops


def test_uniform_in_blocks_leaves_what_additions_join_whole():
    network, graph = dense("resnet20")
    space = ChannelSpace(graph, l1(network, graph), 0.33)
    kept = space.uniform_in_blocks().kept
    shares = {n: len(k) / graph.parameters[f"{n}.weight"].shape[0] for n, k in kept.items()}
    assert {s for n, s in shares.items() if n == "conv1" or n.endswith("conv2")} == {1.0}
    inside = [s for n, s in shares.items() if n.endswith(".conv1")]
    assert max(inside) - min(inside) < 0.05
    assert 0.32 < space.used(space.uniform_in_blocks()) <= 0.33


def test_uniform_is_the_same_everywhere_where_blocks_alone_cannot_meet_the_budget():
    network, graph = dense("resnet20")
    space = ChannelSpace(graph, l1(network, graph), 0.02)
    assert space.uniform_in_blocks() == space.uniform() == space.controls()["uniform"]
    assert space.used(space.uniform()) <= 0.02


@pytest.mark.parametrize(("flops", "parameters"), [(0.5, 0.3), (0.3, 0.7), (0.5, 0.5)])
def test_a_budget_of_two_resources_meets_both_and_uses_up_one(flops, parameters):
    space = space_of("resnet20", Budget(flops=flops, parameters=parameters))
    graph, dense = space.graph, cost(space.graph)
    generator = torch.Generator().manual_seed(0)
    for plan in (space.uniform(), *(space.sample(generator) for _ in range(20))):
        found = cost(graph, plan)
        shares = found.flops / dense.flops / flops, found.parameters / dense.parameters / parameters
        assert 0.9 < max(shares) <= 1.0 + 1e-9
        assert space.used(plan) <= space.budget.fraction + 1e-9


def test_two_resources_of_which_one_is_never_tight_are_a_budget_of_the_other():
    alone = space_of("resnet20", Budget(flops=0.4))
    both = space_of("resnet20", Budget(flops=0.4, parameters=1.0))
    action = np.linspace(0.1, 0.9, alone.size)
    assert alone.plan(action) == both.plan(action)
