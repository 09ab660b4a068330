"""Space `layers`: any subset of what it decides leaves a network that runs and learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import removable_units
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import prune
from gnnrl.rl.observation import fault
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.observations.layers import eight_features
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.layers import LayerSpace
from tests.dense import dense

NETWORKS = ("sagemaker_5block", "resnet18_cifar", "resnet34_cifar", "vgg16_bn")
SIDE = 16


def read(name: str, side: int = SIDE) -> tuple[nn.Module, ComputationalGraph]:
    return dense(name, (3, side, side))


def check_subset(network: nn.Module, graph: ComputationalGraph, action: np.ndarray) -> None:
    """The subnet runs, keeps the remaining weights bit for bit, and every one of them learns."""
    space = LayerSpace(graph)
    plan = space.plan(action)
    subnet = prune(network, graph, plan)
    before, state = network.state_dict(), subnet.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in state.items())
    assert sum(p.numel() for p in subnet.parameters()) == space.cost(plan).parameters
    assert space.used(plan) == pytest.approx(space.cost(plan).parameters / space.dense.parameters)

    generator = torch.Generator().manual_seed(int(action.sum()))
    images = torch.randn(4, *graph.input_shape, generator=generator)
    logits = subnet.train()(images)
    assert logits.shape == (4, 10)
    F.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in subnet.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("name", ["sagemaker_5block", "resnet18_cifar", "vgg16_bn"])
def test_any_subset_leaves_a_network_that_runs_and_learns(name):
    network, graph = read(name, 8)
    space = LayerSpace(graph)
    check_subset(network, graph, space.random(torch.Generator().manual_seed(1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_subset_drawn_leaves_a_network_that_runs_and_learns(name):
    network, graph = read(name)
    space = LayerSpace(graph)
    generator = torch.Generator().manual_seed(2)
    actions = [space.random(generator) for _ in range(20)]
    alone = np.eye(space.size, dtype=bool)
    for action in (*actions, *alone[:: 1 + space.size // 10], np.ones(space.size, dtype=bool)):
        check_subset(network, graph, action)


@pytest.mark.parametrize("name", ["resnet20", "sagemaker_5block"])
def test_the_subnet_computes_what_the_network_without_these_modules_computes(name):
    network, graph = read(name)
    space = LayerSpace(graph)
    action = space.random(torch.Generator().manual_seed(5))
    modules = dict(network.named_modules())
    action &= np.array([part in modules for part in space.names])
    subnet = prune(network, graph, space.plan(action)).eval()
    for part in space.plan(action).removed_layers:
        parent, _, last = part.rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())
    images = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(subnet(images), network(images))


def test_what_is_inside_a_removed_block_makes_no_other_plan():
    _, graph = read("resnet20")
    space = LayerSpace(graph)
    whole = np.array([name == "layer1.0" for name in space.names])
    more = np.array([name.startswith("layer1.0") for name in space.names])
    assert more.sum() > 1
    assert space.plan(more) == space.plan(whole)


def test_strided_layers_and_those_that_change_the_width_are_protected():
    _, graph = read("resnet18_cifar")
    parts = set(LayerSpace(graph).names)
    assert {"layer1.0", "layer1.0.conv1", "layer2.0.conv2", "layer2.0.bn1", "layer4.1"} <= parts
    assert not {"conv1", "layer2.0", "layer2.0.conv1", "layer2.0.downsample.0", "fc"} & parts


@pytest.mark.parametrize("budget", [Budget(parameters=0.3), Budget(flops=0.5)])
def test_no_plan_is_over_the_budget(budget):
    _, graph = read("resnet20")
    space = LayerSpace(graph, budget)
    generator = torch.Generator().manual_seed(0)
    for plan in (*(space.sample(generator) for _ in range(10)), space.plan(np.zeros(space.size))):
        found = getattr(space.cost(plan), budget.resource) / getattr(space.dense, budget.resource)
        assert found <= budget.fraction
        assert found == pytest.approx(space.used(plan))


def test_uniform_depth_takes_from_all_depths():
    _, graph = read("resnet20")
    removed = LayerSpace(graph).uniform(1 / 3).removed_layers
    assert removed == {"layer1.1", "layer2.1", "layer3.1"}


def test_a_network_without_such_layers_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10))
    with pytest.raises(UserError, match="has no layer that can be removed"):
        LayerSpace(extract(network, torch.zeros(1, 3, 8, 8)))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(parameters=0.01), r"cannot be met: without all \d+ removable parts 0\.\d+ of"),
        (Budget(latency=0.5), "cannot meet a budget of latency"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(budget, said):
    _, graph = read("resnet20")
    with pytest.raises(UserError, match=said):
        LayerSpace(graph, budget)


def test_layers_have_the_eight_features_of_the_example():
    _, graph = read("sagemaker_5block", 32)
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    rows = {n.name: eight_features(graph, n, place[n.name]) for n in graph.nodes}
    # its table of 40 indices: type 1, filters, kernel, stride, SAME, parameters
    assert rows["conv"][2:] == [1, 16, 3, 1, 1, 432]
    assert rows["blocks_1_conv1"][2:] == [1, 32, 3, 2, 1, 4608]
    assert rows["blocks_3_projection"][2:] == [1, 64, 1, 2, 1, 2048]
    assert rows["relu"][2:] == [3, 0, 0, 0, 0, 0]
    assert rows["dense"][2:4] == [2, 10]


def test_the_observation_keeps_the_contract_and_says_what_is_gone():
    _, graph = read("resnet20")
    space = LayerSpace(graph)
    first = space.observation()
    assert fault(first) is None
    assert len(first.decision_index) == space.size
    assert float(first.x.abs().max()) < 2
    gone = space.observation(np.array([name == "layer1.0" for name in space.names]))
    assert float(first.x[:, -1].sum()) == 0
    assert float(gone.x[:, -1].sum()) > 1


def test_with_the_prior_depth_whole_units_go_at_first_and_layers_in_them_seldom():
    _, graph = read("resnet20", 8)
    space = LayerSpace(graph, prior="depth")
    agent = build_agent("ppo", PruningEnv(space, lambda plans: []), seed=0, initial_action=0.5)
    seen, units = space.observation(), set(removable_units(graph))
    assert fault(seen) is None
    drawn = agent.act([seen] * 50, torch.Generator().manual_seed(0))
    chances = dict(zip(space.names, np.mean([d.action for d in drawn], axis=0), strict=True))
    assert np.mean([chances[name] for name in units]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([chances[n] for n in space.names if n not in units]) < 0.1


def test_what_remains_can_be_shrunk_as_in_the_second_step_of_n2n():
    network, graph = read("resnet20")
    reduced = prune(network, graph, LayerSpace(graph).uniform(1 / 3)).eval()
    again = extract(reduced, torch.zeros(1, 3, SIDE, SIDE))
    space = ChannelSpace(again, l1(reduced, again), Budget(parameters=0.5))
    subnet = prune(reduced, again, space.uniform())
    parameters = sum(p.numel() for p in subnet.parameters())
    assert parameters <= 0.5 * cost(again).parameters < 0.5 * cost(graph).parameters
    assert subnet(torch.randn(2, 3, SIDE, SIDE)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ppo", "reinforce", "a3c"])
def test_agents_learn_which_layers_can_go(agent):
    """Convolutions may go, norms and activations are missed."""
    _, graph = read("resnet20", 8)
    space = LayerSpace(graph)
    missed = {name for name in space.names if "bn" in name or "relu" in name}

    def evaluate(plans):
        return [
            Evaluation(
                1.0 - space.used(plan) - len(plan.removed_layers & missed) / len(missed),
                parameters=space.cost(plan).parameters,
            )
            for plan in plans
        ]

    env = PruningEnv(space, evaluate)
    chosen = build_agent(agent, env, seed=0, initial_action=0.3)
    found = search(env, chosen, evaluations=160, batch=8, seed=0)
    rewards = [row["reward"] for row in found.evaluations]
    assert np.mean(rewards[-16:]) > np.mean(rewards[:16]) + 0.15


def two_kernels() -> ComputationalGraph:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    return extract(network.eval(), torch.zeros(1, 3, 8, 8))


def test_an_encoder_with_a_decoder_learns_which_layers_go_and_which_kernels_shrink():
    space = LayerSpace(two_kernels(), kernels=True)

    def evaluate(plans):
        return [
            Evaluation(float(plan.kernels.get("0") == 3) - len(plan.removed_layers))
            for plan in plans
        ]

    env = PruningEnv(space, evaluate)
    agent = build_agent("ppo", env, seed=0, encoder="encoder_decoder", hidden=16, layers=1)
    found = search(env, agent, evaluations=64, batch=8, seed=0)
    rewards = [row["reward"] for row in found.evaluations]
    assert found.plan.kernels["0"] == 3 and not found.plan.removed_layers
    assert np.mean(rewards[-8:]) > np.mean(rewards[1:9]) + 0.3


def test_a_budget_shrinks_kernels_where_no_part_is_left():
    graph = two_kernels()
    least = LayerSpace(graph, kernels=True)
    smallest = least.used(least.plan(np.ones(least.size, dtype=bool)))
    space = LayerSpace(graph, Budget(parameters=smallest), kernels=True)
    plan = space.plan(np.zeros(space.size, dtype=bool))
    assert plan.kernels["0"] == 1 and space.used(plan) <= smallest
    both = (
        rf"without all {len(space.parts)} removable parts and with the smallest kernels 0\.\d+ of"
    )
    with pytest.raises(UserError, match=f"cannot be met: {both}"):
        LayerSpace(graph, Budget(parameters=0.99 * smallest), kernels=True)
    with pytest.raises(UserError, match=r"search.kernels makes kernels smaller, whose latency"):
        LayerSpace(graph, Budget(latency=0.5), kernels=True, table=object())


def test_where_kernels_alone_are_decided_a_budget_out_of_reach_names_no_parts():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    graph = extract(network.eval(), torch.zeros(1, 3, 8, 8))
    assert not LayerSpace(graph, kernels=True).parts
    with pytest.raises(UserError, match=r"cannot be met: with the smallest kernels 0\.\d+ of"):
        LayerSpace(graph, Budget(parameters=0.01), kernels=True)


def test_kernels_are_decided_beside_layers_and_the_smallest_size_counts():
    graph = two_kernels()
    space = LayerSpace(graph, kernels=True)
    plain = LayerSpace(graph)
    assert space.names == [*plain.names, "0 3x", "0 1x", "2 1x"]
    chosen = {"0 3x", "0 1x"}
    plan = space.plan(np.array([name in chosen for name in space.names]))
    assert plan.kernels == {"0": 1} and not plan.removed_layers
    assert space.used(plan) == pytest.approx(space.cost(plan).parameters / space.dense.parameters)
    seen = space.observation(np.array([name in chosen for name in space.names]))
    assert seen.x[seen.decision_index, -1].tolist() == [n in chosen for n in space.names]
    assert space.controls()["small kernels"].kernels == {"0": 1, "2": 1}
    without = space.plan(np.array([name in ("2", "2 1x") for name in space.names]))
    assert without == plain.plan(np.array([name == "2" for name in plain.names]))
    assert plain.observation().x.equal(space.observation().x[: len(plain.observation().x)])
