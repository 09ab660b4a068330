"""Importance: one score per channel of every group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.pruning.criteria import CRITERIA
from gnnrl.pruning.importance import batch_norm, fpgm, importance, l1, orthogonality
from gnnrl.pruning.orthogonality import orthogonality_score
from gnnrl.pruning.saliency import taylor
from tests.dense import dense

IMAGE = torch.zeros(1, 3, 32, 32)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 2)
    ).eval()


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("network", ["resnet20", "shufflenet_v2", "mobilenet_v1"])
def test_every_group_gets_one_finite_score_per_channel(name, network):
    network, graph = dense(network)
    scores = importance(name, network, graph)
    assert {g.name: len(scores[g.name]) for g in graph.groups} == {
        g.name: g.size for g in graph.groups
    }


def test_l1_is_the_sum_of_absolute_weights():
    network = small()
    scores = l1(network, extract(network, IMAGE))
    torch.testing.assert_close(scores["0"], network[0].weight.abs().sum((1, 2, 3)))


def test_l1_is_summed_over_the_layers_that_a_channel_ties_together():
    network, graph = dense("resnet20")
    group = graph.groups[0]
    assert len(group.layers) > 1
    units = torch.from_numpy(graph.layers[group.layers[-1]].filters.units)
    total = torch.zeros(group.size)
    for layer in group.layers:
        weight = network.get_submodule(layer).weight.detach()
        mine = torch.from_numpy(graph.layers[layer].filters.units)
        free = (mine >= 0) & (mine < group.size)
        total.index_add_(0, mine[free], weight.abs().flatten(1).sum(1)[free])
    assert len(units) >= group.size
    torch.testing.assert_close(l1(network, graph)[group.name], total)


def test_batch_norm_scale_is_read_off_the_norm():
    network = small()
    network[1].weight.data = torch.tensor([0.1, -3.0, 0.5, 2.0])
    scores = batch_norm(network, extract(network, IMAGE))
    torch.testing.assert_close(scores["0"], torch.tensor([0.1, 3.0, 0.5, 2.0]))


def test_fpgm_gives_the_lowest_score_to_the_filter_in_the_middle():
    network = small()
    with torch.no_grad():
        for i, value in enumerate((0.0, 1.0, 2.0, 30.0)):
            network[0].weight[i] = value
    scores = fpgm(network, extract(network, IMAGE))["0"]
    assert int(scores.argmin()) in (1, 2)
    assert int(scores.argmax()) == 3


def test_taylor_gives_nothing_to_a_filter_that_does_not_matter():
    network = small()
    network[1].weight.data[2] = 0.0
    network[1].bias.data[2] = 0.0
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(0, 2, (8,))

    scores = taylor(network, extract(network, IMAGE), images, labels)["0"]
    assert scores[2] == 0
    assert (scores[[0, 1, 3]] > 0).all()


def test_orthogonality_is_what_the_score_of_a_layer_loses_with_a_filter():
    network = small()
    scores = orthogonality(network, extract(network, IMAGE))["0"]
    weight = network[0].weight.detach()
    whole = orthogonality_score(weight)
    for index in range(len(weight)):
        kept = (torch.arange(len(weight)) != index)[:, None, None, None]
        rise = orthogonality_score(weight, kept) - whole
        assert float(scores[index]) == pytest.approx(rise, rel=1e-4)


def test_an_unknown_importance_is_refused_with_the_nearest_name():
    network = small()
    with pytest.raises(UserError, match="'l1_normalized'; did you mean l1_normalised"):
        importance("l1_normalized", network, extract(network, IMAGE))


def test_weights_that_are_not_finite_are_refused():
    network = small()
    network[0].weight.data[0] = float("nan")
    with pytest.raises(UserError, match="group '0' is not finite"):
        l1(network, extract(network, IMAGE))
