"""The space of fine-grained sparsity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.sparsity import sparsify
from gnnrl.search.spaces.weights import WeightSpace


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network("basic_cnn").eval()


@pytest.fixture(scope="module")
def space(network) -> WeightSpace:
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    return WeightSpace(graph, l1(network, graph), Budget(parameters=0.3))


def test_plans_use_up_the_budget_and_never_exceed_it(space):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        assert 0.2999 <= space.used(space.sample(generator)) <= 0.3


def test_the_sparsified_network_has_as_many_zeros_as_the_cost_says(space):
    network = build_network("basic_cnn").eval()
    plan = space.sample(torch.Generator().manual_seed(1))
    sparsify(network, space.graph, plan)
    nonzero = sum(int((p != 0).sum()) for n, p in network.named_parameters())
    unset = sum(int((p == 0).sum()) for n, p in network.named_parameters() if p.ndim == 1)
    assert nonzero + unset == cost(space.graph, plan).parameters


def test_the_largest_weights_stay(space, network):
    twin = build_network("basic_cnn")
    twin.load_state_dict(network.state_dict())
    layer = space.names[1]
    sparsify(twin, space.graph, PruningPlan(weight_sparsity={layer: 0.9}))
    weight, before = (n.get_submodule(layer).weight.detach() for n in (twin, network))
    assert before[weight != 0].abs().min() >= before[weight == 0].abs().max()


def test_every_layer_is_a_decision_of_the_observation(space):
    observation = space.observation(np.full(space.size, 0.4))
    assert len(observation.decision_index) == space.size


def test_a_budget_of_flops_is_refused(space, network):
    with pytest.raises(UserError, match=r"cannot meet a budget of flops; give budget.parameters"):
        WeightSpace(space.graph, l1(network, space.graph), Budget(flops=0.5))
