"""Space `joint`: widths and depths in one plan, always within the budget."""

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
from gnnrl.graph.latency import predicted
from gnnrl.graph.removal import absent_layers
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace, Widths
from gnnrl.search.spaces.joint import REMOVED_BELOW, JointSpace
from gnnrl.search.spaces.registry import build_space
from tests.dense import dense
from tests.measurement.test_latency_table import made_up


def plain() -> nn.Sequential:
    """Convolutions in a row: without one of them, the channels around it are the same."""
    parts = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        parts += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def graph_of(name: str):
    if name != "plain":
        return dense(name)
    network = plain().eval()
    return network, extract(network, torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def resnet20():
    return graph_of("resnet20")


def space_of(given, budget=0.5, **settings) -> JointSpace:
    network, graph = given
    return JointSpace(Widths(graph, l1(network, graph), budget, **settings))


@pytest.mark.parametrize("name", ["resnet20", "plain"])
@pytest.mark.parametrize("budget", [{"flops": 0.5}, {"parameters": 0.2}])
def test_any_action_is_a_plan_within_the_budget_that_the_surgery_can_cut(name, budget):
    given = graph_of(name)
    space, generator = space_of(given, Budget(**budget)), torch.Generator().manual_seed(0)
    (resource,) = budget
    for _ in range(2):
        plan = space.sample(generator)
        subnet = extract(prune(*given, plan), torch.zeros(1, 3, 32, 32))
        kept = getattr(cost(subnet), resource) / getattr(space.dense, resource)
        assert kept == pytest.approx(space.used(plan)) and kept <= budget[resource]
        assert kept > 0.9 * budget[resource]


class Own(JointSpace):
    """A user's."""


def test_a_space_of_ones_own_is_given_the_space_of_channels_whose_budget_may_be_out_of_reach(
    resnet20,
):
    network, graph = resnet20
    offered = {"graph": graph, "importance": l1(network, graph), "min_channels": 8}
    space = build_space(f"{__name__}:Own", budget=Budget(flops=0.1), project=True, **offered)
    assert isinstance(space, Own) and space.widths.min_channels == 8
    assert not space.left(()).reachable
    with pytest.raises(UserError, match="cannot be met"):
        build_space("channels", budget=Budget(flops=0.1), **offered)


def test_a_part_is_removed_where_its_entry_is_low(resnet20):
    space = space_of(resnet20)
    action = np.full(space.size, 0.5)
    assert not space.plan(action).removed_layers
    action[space.names.index("layer2.1")] = REMOVED_BELOW - 0.01
    plan = space.plan(action)
    assert plan.removed_layers == {"layer2.1"}
    assert not any(layer.startswith("layer2.1.") for layer in plan.kept)


def test_without_removed_parts_the_plans_are_those_of_the_space_channels(resnet20):
    network, graph = resnet20
    channels = ChannelSpace(graph, l1(network, graph), 0.4)
    joint = space_of(resnet20, 0.4)
    ratios = channels.random(torch.Generator().manual_seed(3))
    action = np.concatenate([ratios, np.ones(len(joint.parts))])
    assert joint.plan(action) == channels.plan(ratios)


def test_parts_are_removed_where_widths_alone_miss_the_budget_and_come_back_where_all_fits(
    resnet20,
):
    tight = space_of(resnet20, 0.1, min_channels=8)
    assert not tight.left(()).reachable
    plan = tight.plan(np.ones(tight.size))
    assert plan.removed_layers and tight.used(plan) <= 0.1
    wide = space_of(resnet20, 0.9)
    plan = wide.plan(np.zeros(wide.size))
    assert 0.88 < wide.used(plan) <= 0.9  # all parts had entries of zero
    assert len(plan.removed_layers) < len(wide.parts)


def test_a_budget_that_no_depth_and_width_meets_is_refused(resnet20):
    with pytest.raises(UserError, match="cannot be met: without all 9 removable parts"):
        space_of(resnet20, 0.01, min_channels=8)


@pytest.mark.parametrize("prior", [None, "reconstruction"])
def test_without_removable_parts_it_is_the_space_of_channels(prior):
    network, graph = graph_of("basic_cnn")
    settings = {"curves": measured(graph, ""), "prior": prior}
    space = space_of((network, graph), **settings)
    channels = ChannelSpace(graph, l1(network, graph), 0.5, **settings)
    assert not space.parts
    for seed in range(3):
        action = space.random(torch.Generator().manual_seed(seed))
        assert space.plan(action) == channels.plan(action)
    assert space.menu().errors.equal(channels.menu().errors)
    assert space.observation().x.equal(channels.observation().x)


def test_the_units_of_a_plan_are_found_again_from_the_plan_alone(resnet20):
    space = space_of(resnet20)
    action = space.random(torch.Generator().manual_seed(1))
    decided = space.decide(action)
    assert decided.plan.removed_layers
    again = Decided(decided.plan).units_of(space.graph)
    assert np.array_equal(decided.units, again)


def test_a_budget_of_latency_is_met_by_the_table_with_its_overhead(resnet20):
    _, graph = resnet20
    table = made_up(graph, 8, overhead=100.0)
    space = space_of(resnet20, Budget(latency=0.5), table=table, multiple=8)
    plan = space.sample(torch.Generator().manual_seed(0))
    share = predicted(graph, table, plan) / predicted(graph, table, PruningPlan())
    assert share == pytest.approx(space.used(plan)) and share <= 0.5


def test_controls_are_one_depth_one_width_and_both(resnet20):
    space = space_of(resnet20, 0.4)
    controls = space.controls()
    assert set(controls) == {"uniform", "uniform depth", "uniform width"}
    assert all(space.used(plan) <= 0.4 for plan in controls.values())
    assert not controls["uniform width"].removed_layers
    assert not controls["uniform depth"].kept
    assert controls["uniform"].kept and controls["uniform"].removed_layers


def test_the_observation_has_the_columns_of_channels_and_a_node_for_each_part(resnet20):
    network, graph = resnet20
    space = space_of(resnet20)
    seen = space.observation()
    channels = ChannelSpace(graph, l1(network, graph)).observation()
    assert seen.x.shape[1] == channels.x.shape[1]
    assert seen.edge_attr.shape[1] == channels.edge_attr.shape[1]
    assert torch.equal(seen.x[: len(channels.x)], channels.x)
    assert len(seen.decision_index) == space.size
    keep = np.ones(space.size)
    keep[-1] = 0.0
    changed = (space.observation(keep).x != seen.x).any(1).nonzero().flatten()
    assert changed.tolist() == [len(seen.x) - 1]


def test_steps_remove_parts_for_good(resnet20):
    space = space_of(resnet20, 0.3)
    first = np.full(space.size, 0.8)
    first[-1] = 0.0
    keep = space.step(None, first)
    after = space.step(keep, np.full(space.size, 0.9))
    assert after[-1] == 0.0 and (after <= keep).all()
    assert not space.met(keep)
    assert space.met(np.zeros(space.size))


def test_the_menu_of_a_solver_has_a_level_for_removal_and_its_costs_are_those_of_plans(resnet20):
    _, graph = resnet20
    curves = {
        group.name: torch.linspace(0, 1, group.size + 1, dtype=torch.float64) ** 2
        for group in graph.groups
    }
    space = space_of(resnet20, 0.4, curves=curves, prior="reconstruction")
    menu = space.menu()
    assert menu is not None and menu.actions.shape[0] == space.size
    removed = np.zeros(space.size)
    removed[-1] = 1.0
    alone = space.left([space.parts[-1]])
    assert menu.cost(removed) == pytest.approx(alone.whole)
    inner = space.names.index("layer3.2.conv1")  # gone with its block: its channels save nothing
    removed[inner] = 1.0
    assert menu.cost(removed) == pytest.approx(alone.whole)


@pytest.mark.parametrize("name", ["ppo", "evolution", "annealing", "solver", "evopress", "random"])
def test_agents_search_it(name, resnet20):
    _, graph = resnet20
    curves = {
        group.name: torch.linspace(0, 1, group.size + 1, dtype=torch.float64) ** 2
        for group in graph.groups
    }
    space = space_of(resnet20, 0.4, curves=curves, prior="reconstruction")

    def evaluate(plans):
        costs = [cost(graph, plan) for plan in plans]
        depths = [len(plan.removed_layers) for plan in plans]
        return [
            Evaluation(-abs(depth - 4.0), 0.5, c.flops, c.parameters)
            for depth, c in zip(depths, costs, strict=True)
        ]

    env = PruningEnv(space, evaluate)
    found = search(env, build_agent(name, env, seed=0), evaluations=6, batch=3, seed=0)
    assert {row["status"] for row in found.evaluations} == {"ok"}
    assert space.used(found.plan) <= 0.4


def test_ppo_learns_to_take_layers_rather_than_channels():
    parts = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    for _ in range(8):
        parts += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    given = network, extract(network, torch.zeros(1, 3, 8, 8))
    space = space_of(given, 0.15)  # the widths alone can meet it

    def evaluate(plans):
        removed = [len(plan.removed_layers) / len(space.parts) for plan in plans]
        first = [len(plan.kept.get("0", range(8))) / 8 for plan in plans]
        return [Evaluation(a - 0.5 * abs(b - 0.5)) for a, b in zip(removed, first, strict=True)]

    small = {"hidden": 16, "layers": 1, "learning_rate": 0.02}
    rewards = {}
    for name, settings in (("ppo", small), ("random", {})):
        env = PruningEnv(space, evaluate)
        found = search(env, build_agent(name, env, seed=0, **settings), evaluations=100, seed=0)
        rewards[name] = [row["reward"] for row in found.evaluations]
    start, learned = rewards["ppo"][0], rewards["ppo"][-1]  # both are greedy
    assert learned > start + 0.5
    assert learned > max(rewards["random"])


def measured(graph, cheap: str) -> dict[str, torch.Tensor]:
    """Errors of every group that grow with what is removed, next to none inside one block."""
    rng = torch.Generator().manual_seed(0)
    curves = {}
    for group in graph.groups:
        steps = torch.rand(group.size, generator=rng, dtype=torch.float64).sort().values
        scale = 1e-6 if all(layer.startswith(f"{cheap}.") for layer in group.layers) else 1.0
        curves[group.name] = scale * torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return curves


def test_with_measured_errors_one_half_removes_what_loses_least(resnet20):
    _, graph = resnet20
    given = {"curves": measured(graph, "layer2.1"), "prior": "reconstruction", "min_channels": 4}
    space, half = space_of(resnet20, 0.3, **given), np.full(space_of(resnet20).size, 0.5)
    plan = space.plan(half)
    assert "layer2.1" in plan.removed_layers
    assert 0.29 < space.used(plan) <= 0.3
    half[space.names.index("layer2.1")] = 0.5 + REMOVED_BELOW
    assert "layer2.1" not in space.plan(half).removed_layers


def test_the_start_loses_no_more_than_the_first_plan_of_the_solver(resnet20):
    _, graph = resnet20
    table = made_up(graph, 4, overhead=100.0)
    for budget in (Budget(flops=0.3), Budget(latency=0.4)):
        given = {"curves": measured(graph, "layer2.1"), "prior": "reconstruction", "table": table}
        space = space_of(resnet20, budget, min_channels=4, multiple=4, **given)
        env = PruningEnv(space, lambda plans: [Evaluation(0.0) for _ in plans])
        solver = build_agent("solver", env, seed=0)
        solver.prepare(env)
        seen, _ = env.reset(seed=0)
        (decision,) = solver.act([seen], torch.Generator().manual_seed(0), greedy=True)
        start, solved = space.plan(np.full(space.size, 0.5)), space.plan(decision.action)
        assert start.removed_layers == solved.removed_layers
        assert lost(space, start) <= lost(space, solved) * 1.02


def lost(space: JointSpace, plan: PruningPlan) -> float:
    """The sum of what the widths of all groups that are left lose."""
    gone = absent_layers(space.graph, plan.removed_layers)
    keep = kept_units(space.graph, plan.kept, gone)
    return sum(
        float(space.widths.curves[g.name][(~keep[g.start : g.start + g.size]).sum()])
        for g in space.graph.groups
        if not set(g.layers) <= set(gone)
    )


def test_of_equal_entries_the_part_that_loses_least_is_removed_first(resnet20):
    _, graph = resnet20
    given = {"curves": measured(graph, "layer3.2"), "prior": "reconstruction", "min_channels": 8}
    space = space_of(resnet20, 0.1, **given)
    keep = np.full(space.size, 0.99)  # all are asked to stay, and widths alone miss the budget
    assert not space.left(()).reachable
    assert "layer3.2" in space.plan(keep).removed_layers
