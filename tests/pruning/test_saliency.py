"""Criteria of pruning before training, against their definitions by other means."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning import saliency
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.criteria import SALIENCIES
from tests.dense import dense

SHAPE = (1, 20, 20)
LAYERS = ("conv1", "conv2", "conv3", "conv4")


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    network = build_network("basic_cnn_eighth", input_shape=SHAPE).eval()
    graph = extract(network, torch.zeros(1, *SHAPE))
    return network, graph, torch.randn(30, *SHAPE), torch.arange(30) % 10


def by_layer(scored, graph):
    return {group.layers[0]: scored[group.name] for group in graph.groups}


def loss(network, images, labels, temperature=1.0):
    with batch_statistics(network):
        return F.cross_entropy(network(images) / temperature, labels)


def test_magnitude_is_the_mean_absolute_weight(setting):
    network, graph, *_ = setting
    found = by_layer(saliency.magnitude(network, graph), graph)
    for name in LAYERS:
        expected = network.get_submodule(name).weight.detach().abs().mean((1, 2, 3)).double()
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=0)


def test_magnitude_sign_counts_only_weights_that_kept_their_sign(setting):
    network, graph, *_ = setting
    trained = copy.deepcopy(network)
    with torch.no_grad():
        trained.conv2.weight[0] = -trained.conv2.weight[0]
        trained.conv2.weight[1] *= 3
    found = by_layer(saliency.magnitude_sign(trained, graph, network), graph)["conv2"]
    before = by_layer(saliency.magnitude(network, graph), graph)["conv2"]
    assert found[0] == 0
    assert found[1] == pytest.approx(3 * float(before[1]), rel=1e-6)
    torch.testing.assert_close(found[2:], before[2:])


def test_snip_is_the_change_of_the_loss_when_weights_fade(setting):
    """|w dL/dw| by finite differences of a factor on one weight, summed over a filter."""
    network, graph, images, labels = copy.deepcopy(setting[0]).double(), *setting[1:]
    images = images.double()
    found = by_layer(saliency.snip(network, graph, images, labels), graph)["conv1"][2]
    weight, total, step = network.conv1.weight, 0.0, 1e-5
    with torch.no_grad():
        for place in range(9):
            flat = weight[2].view(-1)
            kept = flat[place].clone()
            sides = []
            for factor in (1 + step, 1 - step):
                flat[place] = kept * factor
                sides.append(float(loss(network, images, labels)))
            flat[place] = kept
            total += abs(sides[0] - sides[1]) / (2 * step)
    assert float(found) == pytest.approx(total, rel=1e-3)


def test_grasp_is_half_the_change_of_the_squared_gradient_when_a_filter_fades(setting):
    """w (H g) = d/dt |g(w + t w)|^2 / 2 over the weights of one filter."""
    network, graph, images, labels = copy.deepcopy(setting[0]).double(), *setting[1:]
    images = images.double()
    found = by_layer(saliency.grasp(network, graph, images, labels), graph)["conv3"][5]
    weights = [network.get_submodule(name).weight for name in LAYERS]

    def flow(factor):
        with torch.no_grad():
            kept = network.conv3.weight[5].clone()
            network.conv3.weight[5] = kept * factor
        gradients = torch.autograd.grad(
            loss(network, images, labels, saliency.TEMPERATURE), weights
        )
        with torch.no_grad():
            network.conv3.weight[5] = kept
        return float(sum(g.square().sum() for g in gradients))

    step = 1e-4
    expected = (flow(1 + step) - flow(1 - step)) / (2 * step) / 2
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_synaptic_flow_is_conserved_from_layer_to_layer(setting):
    """What flows through the filters of a layer is the same in every layer (Tanaka, theorem 2)."""
    network, graph, *_ = setting
    image = torch.ones(1, *SHAPE, dtype=torch.float64)
    flowing = saliency._flow(saliency._positive(network), graph, image)
    sums = [float(flowing[group.start : group.start + group.size].sum()) for group in graph.groups]
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-6)


def test_synflow_ranks_every_filter_and_leaves_no_layer_empty_before_the_last(setting):
    network, graph, *_ = setting
    scored = saliency.synflow(network, graph, rounds=30)
    every = torch.cat([scored[group.name] for group in graph.groups])
    assert len(every.unique()) > 100
    last = every.topk(8).indices
    assert all(
        bool(((last >= group.start) & (last < group.start + group.size)).any())
        for group in graph.groups
    )


@pytest.mark.parametrize("criterion", SALIENCIES)
def test_scoring_leaves_the_network_as_it_was_and_repeats_itself(setting, criterion):
    network, graph, images, labels = setting
    before = copy.deepcopy(network.state_dict())
    first, again = (
        saliency.score(criterion, network, graph, lambda: (images, labels), network)
        for _ in range(2)
    )
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(torch.equal(first.importance[g], again.importance[g]) for g in first.importance)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_magnitude_sign_without_the_initial_network_is_refused(setting):
    network, graph, *_ = setting
    with pytest.raises(UserError, match="give the initial network"):
        saliency.score("magnitude_sign", network, graph, lambda: (None, None))


def test_layers_that_are_coupled_are_scored_together():
    network, graph = dense("resnet20")
    scored = saliency.magnitude(network, graph)
    group = graph.groups[0]
    parts = [
        network.get_submodule(name).weight.detach()[index].abs().mean()
        for name, node in graph.layers.items()
        for index, unit in enumerate(node.filters.units)
        if unit == group.start
    ]
    assert len(parts) > 2
    assert float(scored[group.name][0]) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)
