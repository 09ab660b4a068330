"""Gates find which channels a network can do without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl.errors import UserError
from gnnrl.graph.cost import cost_of_units
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.bottleneck import bottleneck, gated_network
from gnnrl.pruning.criteria import BottleneckSettings
from gnnrl.pruning.expected_cost import ExpectedCost
from gnnrl.pruning.surgery import Surgeon
from tests.dense import dense

IMAGES = torch.randn(96, 3, 12, 12, generator=torch.Generator().manual_seed(0))
SHORT = BottleneckSettings(batches=40, batch_size=32, learning_rate=0.3)
USEFUL = torch.arange(8) % 2 == 0


def half_useless() -> nn.Module:
    """Nothing of the odd channels of its first layer is used further on."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    with torch.no_grad():
        network[3].weight[:, ~USEFUL] = 0.0
        network[8].weight *= 10.0
    return network.train()


def analysis_of(network: nn.Module, images: torch.Tensor):
    with torch.no_grad():
        network.train()(images)
    return Surgeon(network.eval(), extract(network, images[:1])).analysis


def found(fraction=0.6, seed=0, **options):
    analysis = analysis_of(half_useless(), IMAGES)
    generator = torch.Generator().manual_seed(seed)
    options = {"settings": SHORT, **options}
    return analysis, bottleneck(analysis, IMAGES, fraction=fraction, generator=generator, **options)


def test_the_gates_of_useless_channels_close():
    analysis, result = found()
    first, second = (result.importance[g.name] for g in analysis.graph.groups)
    assert first[USEFUL].min() > first[~USEFUL].max()
    assert first[~USEFUL].max() < 0 < second.mean()
    ratios = [result.keep_ratios[g.name] for g in analysis.graph.groups]
    assert ratios[0] < 0.7 < ratios[1]


@pytest.mark.parametrize("resource", ["flops", "parameters"])
@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_the_expected_cost_is_the_budget(fraction, resource):
    short = BottleneckSettings(batches=4, batch_size=16)
    analysis, result = found(fraction, resource=resource, settings=short)
    stays = torch.cat([result.importance[g.name] for g in analysis.graph.groups]).sigmoid()
    whole = getattr(cost_of_units(analysis.graph, np.ones(14, bool)), resource)
    reached = float(ExpectedCost(analysis.graph, resource)(stays)) / whole
    assert fraction - 1e-3 < reached <= fraction


def test_it_costs_three_forward_passes_a_batch_and_a_look_at_the_dense_network():
    short = BottleneckSettings(batches=4, batch_size=16)
    assert found(settings=short)[1].forward_images == 96 + 3 * 4 * 16


def test_the_same_seed_gives_the_same_gates():
    short = BottleneckSettings(batches=4, batch_size=16)
    (analysis, one), (_, same), (_, other) = (found(seed=s, settings=short) for s in (0, 0, 1))
    for group in analysis.graph.groups:
        assert torch.equal(one.importance[group.name], same.importance[group.name])
    assert any(not torch.equal(one.importance[n], other.importance[n]) for n in one.importance)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v1"])
def test_closed_gates_are_the_network_without_these_channels(name):
    torch.manual_seed(0)
    images = IMAGES[:2].repeat(1, 1, 3, 3)[:, :, :32, :32]
    network = build_network(name)
    analysis = analysis_of(network, images)
    gated, gates = gated_network(analysis)
    keep = np.random.default_rng(0).random(analysis.graph.num_units) < 0.7
    for group in analysis.graph.groups:
        keep[group.start] = True
    passing = torch.from_numpy(np.append(keep, True)).float()
    gates.passing = passing.expand(len(images), -1)
    cut = Surgeon(network, analysis.graph).cut_units(keep).eval()
    torch.testing.assert_close(gated(images), cut(images), rtol=1e-3, atol=1e-4)
    gates.passing = torch.ones_like(gates.passing)
    torch.testing.assert_close(gated(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("resource", ["flops", "parameters"])
@pytest.mark.parametrize("name", ["resnet20", "shufflenet_v2"])
def test_the_expected_cost_of_certain_channels_is_the_cost(name, resource):
    _, graph = dense(name)
    keep = np.random.default_rng(1).random(graph.num_units) < 0.5
    exact = getattr(cost_of_units(graph, keep), resource)
    expected = ExpectedCost(graph, resource)(torch.from_numpy(keep).float())
    assert float(expected) == pytest.approx(exact, rel=1e-6)


def test_a_budget_of_latency_is_refused():
    with pytest.raises(UserError, match="flops or parameters, got a budget of latency"):
        found(resource="latency")


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        BottleneckSettings(**wrong)
