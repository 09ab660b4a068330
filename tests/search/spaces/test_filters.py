"""Space filters: the number is exact, no layer is emptied, whatever the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import SUBSET, build_agent
from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import prune
from gnnrl.rl.checks import Checked
from gnnrl.rl.episodes import roll_out
from gnnrl.rl.observation import fault
from gnnrl.search.env import PruningEnv
from gnnrl.search.spaces.filters import FilterSpace
from gnnrl.search.spaces.registry import build_space
from tests.dense import dense

SHAPE = (1, 20, 20)


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(0)
    network = build_network("basic_cnn_eighth", input_shape=SHAPE).eval()
    return network, extract(network, torch.zeros(1, *SHAPE))


def space(cnn, sparsity=0.5, **options):
    network, graph = cnn
    return FilterSpace(graph, l1(network, graph), Budget(sparsity=sparsity), **options)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_basic_cnn_has_960_filters_to_decide():
    network, graph = dense("basic_cnn")
    full = FilterSpace(graph, l1(network, graph), Budget(sparsity=0.8))
    assert (full.size, full.keep) == (960, 192)


@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.5, 0.8, 0.95])
def test_exactly_as_many_filters_stay_as_the_sparsity_says(cnn, sparsity):
    found = space(cnn, sparsity)
    for seed in range(5):
        plan = found.sample(rng(seed))
        widths = [len(plan.kept[layer]) for layer in ("conv1", "conv2", "conv3", "conv4")]
        assert sum(widths) == round((1 - sparsity) * 120)
        assert min(widths) >= 1


def test_the_cut_network_has_the_filters_and_the_cost_of_the_plan(cnn):
    network, graph = cnn
    plan = space(cnn, 0.7).sample(rng())
    subnet = prune(network, graph, plan)
    for name in ("conv1", "conv2", "conv3", "conv4"):
        assert subnet.get_submodule(name).weight.shape[0] == len(plan.kept[name])
    assert sum(p.numel() for p in subnet.parameters()) == cost(graph, plan).parameters
    assert cost(graph, plan).flops < cost(graph).flops


def test_layers_keep_the_fraction_that_is_asked_for(cnn):
    found = space(cnn, 0.7, min_fraction=0.25)
    for seed in range(10):
        plan = found.sample(rng(seed))
        for layer, width in zip(("conv1", "conv2", "conv3", "conv4"), (8, 16, 32, 64), strict=True):
            assert len(plan.kept[layer]) >= width / 4


@pytest.mark.parametrize(
    "name", ["resnet20", pytest.param("shufflenet_v2", marks=pytest.mark.slow)]
)
def test_on_networks_whose_layers_are_coupled_the_subnet_runs(name):
    network, graph = dense(name)
    found = FilterSpace(graph, l1(network, graph), Budget(sparsity=0.6))
    plan = found.sample(rng())
    assert int(found.kept(plan).sum()) == round(0.4 * graph.num_units)
    assert prune(network, graph, plan)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_plan_and_its_action_say_the_same(cnn):
    found = space(cnn)
    action = found.random(rng())
    np.testing.assert_array_equal(found.kept(found.plan(action)), action)
    assert found.met(action) and found.used(found.plan(action)) == 0.5


def test_the_observation_keeps_the_contract_and_shows_every_filter(cnn):
    seen = space(cnn).observation()
    assert fault(seen) is None
    assert seen.decision_index.numel() == 120 and int(seen.keep) == 60
    assert torch.bincount(seen.part).tolist() == [8, 16, 32, 64]
    Checked(PruningEnv(space(cnn), None)).reset(0)


@pytest.mark.parametrize("name", SUBSET)
@pytest.mark.parametrize("sparsity", [0.5, 0.95])
def test_no_agent_ever_empties_a_layer(cnn, name, sparsity):
    """At 0.95 six filters stay for four layers: a global ranking alone would empty one."""
    env = PruningEnv(space(cnn, sparsity), None)
    small = {"hidden": 8, "layers": 1, "encoder": "plain"} if name == "reinforce" else {}
    agent = build_agent(name, env, seed=0, **small)
    for episode in roll_out(env, agent, [1, 2, 3], rng()):
        widths = [len(filters) for filters in episode.info["plan"].kept.values()]
        assert sum(widths) == round((1 - sparsity) * 120) and min(widths) >= 1


def test_shuffled_keeps_as_many_of_each_layer_but_others(cnn):
    env = PruningEnv(space(cnn), None)
    plans = [
        roll_out(env, build_agent("ranking", env, seed=1, shuffled=shuffled), [1], rng())[0].info[
            "plan"
        ]
        for shuffled in (False, True)
    ]
    widths = [[len(filters) for filters in plan.kept.values()] for plan in plans]
    assert widths[0] == widths[1] and plans[0] != plans[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": 0.98}, "leaves 2 of 120 filters, but its 4 layers"),
        ({"sparsity": 0.7, "min_channels": 10}, "lower the sparsity, min_channels"),
        ({"sparsity": 0.7, "min_fraction": 0.5}, "so that none is emptied"),
    ],
)
def test_a_sparsity_that_would_empty_a_layer_is_refused(cnn, options, said):
    with pytest.raises(UserError, match=said):
        space(cnn, **options)


def test_other_budgets_and_other_spaces_are_refused(cnn):
    network, graph = cnn
    scores = l1(network, graph)
    with pytest.raises(UserError, match="cannot meet a budget of flops"):
        FilterSpace(graph, scores, Budget(flops=0.5))
    with pytest.raises(UserError, match=r"sparsity counts filters or single weights, which only"):
        build_space("channels", graph=graph, importance=scores, budget=Budget(sparsity=0.5))
    with pytest.raises(UserError, match=r"budget.sparsity must be in \[0, 1\), .* got 1"):
        Budget(sparsity=1)


def test_an_action_of_another_number_makes_no_plan(cnn):
    with pytest.raises(UserError, match="it chooses 120, expected exactly 60"):
        space(cnn).plan(np.ones(120, dtype=bool))


@pytest.mark.parametrize("name", ["ppo", "ddpg", "evolution", "sensitivity", "uniform"])
def test_an_agent_that_cannot_choose_a_number_is_refused_in_one_sentence(cnn, name):
    env = PruningEnv(space(cnn), None)
    with pytest.raises(UserError, match=f"agent {name} cannot choose a number of decisions"):
        build_agent(name, env)
