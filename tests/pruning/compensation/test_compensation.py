"""Weights that make up for what a cut took away."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnnrl.data.calibration import mirrored
from gnnrl.graph.extract import extract
from gnnrl.graph.unit_mapping import kept_filters
from gnnrl.networks.build import build_network
from gnnrl.pruning.compensation import moments
from gnnrl.pruning.compensation.elimination import Elimination, Moments, eliminate, ridged
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.compensation.linear_maps import folded, readers, rewrite
from gnnrl.pruning.compensation.moments import collect, reconstruction
from gnnrl.pruning.compensation.samples import positions, rows, values
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.spaces.channels import ChannelSpace

IMAGES = torch.randn(64, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def twins() -> nn.Module:
    """A network whose first layer makes every channel twice."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    with torch.no_grad():
        network[0].weight[4:] = 2.0 * network[0].weight[:4]
        network[1].running_var.fill_(0.5)
        network[1].weight.uniform_(0.5, 1.5)
        network[1].weight[4:] = network[1].weight[:4]
        network[4].running_mean.normal_()
        network[4].bias.normal_()
    return network.eval()


def surgeon_of(network: nn.Module) -> Surgeon:
    return Surgeon(network, extract(network, IMAGES[:1]))


def calibrated(surgeon: Surgeon, **options: int):
    generator = torch.Generator().manual_seed(0)
    return collect(surgeon.analysis, IMAGES, generator=generator, **options)


def one_of_each_pair(surgeon: Surgeon) -> tuple[PruningPlan, np.ndarray]:
    keep = np.ones(surgeon.analysis.graph.num_units, dtype=bool)
    group = surgeon.analysis.graph.group("0")
    keep[group.start + 4 : group.start + 8] = False
    return PruningPlan(kept_filters(surgeon.analysis.graph, keep)), keep


def test_gradients_are_taken_of_the_first_images_where_images_are_large(monkeypatch):
    surgeon, first = surgeon_of(twins()), 5
    every = calibrated(surgeon)
    monkeypatch.setattr(moments, "GRADIENT_PIXELS", first * IMAGES[0, 0].numel())
    some = calibrated(surgeon)
    seed = torch.Generator().manual_seed(0)
    alone = collect(surgeon.analysis, IMAGES[:first], generator=seed)
    assert some.forward_images == 2 * len(IMAGES) + 4 * first < every.forward_images
    for layer, found in some.moments.items():
        assert torch.equal(found.metric, alone.moments[layer].metric)
        assert not torch.equal(found.metric, every.moments[layer].metric)
    last = surgeon.analysis.graph.layers.keys() & some.moments.keys()
    assert all(some.moments[name].second[-1, -1] == 1 for name in last)


def test_moments_in_single_precision_are_those_in_double():
    surgeon, double = surgeon_of(twins()), surgeon_of(twins().double())
    seed = torch.Generator().manual_seed(0)
    exact = collect(double.analysis, IMAGES.double(), generator=seed).moments
    for layer, found in calibrated(surgeon).moments.items():
        scale = exact[layer].second.abs().max()
        assert (found.second - exact[layer].second).abs().max() < 1e-6 * scale


def test_moments_in_blocks_are_those_of_the_whole(monkeypatch):
    surgeon = surgeon_of(twins())
    whole = calibrated(surgeon).moments
    monkeypatch.setattr(moments, "BLOCK", 20)  # of 73 inputs
    for layer, found in calibrated(surgeon).moments.items():
        assert torch.allclose(found.second, whole[layer].second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn"])
def test_a_folded_reader_gives_what_the_layers_give(name):
    torch.manual_seed(0)
    surgeon = surgeon_32(name)
    network, generator = surgeon.analysis.traced.eval(), torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    found = {}

    def remember(layer: str):
        return lambda module, read, given: found.__setitem__(layer, (read[0], given))

    some = [r for r in readers(surgeon.analysis) if not r.other][:6]
    for reader in some:
        network.get_submodule(reader.layer).register_forward_hook(remember(reader.layer))
        if reader.norm:
            network.get_submodule(reader.norm).register_forward_hook(remember(reader.norm))
    network(images)
    for reader in some:
        x, own = found[reader.layer]
        y = found[reader.norm][1] if reader.norm else own
        chosen = positions(reader, y.shape, len(y), 7, generator)
        reached = rows(x, reader, chosen, y.shape[-1]) @ folded(network, reader)
        torch.testing.assert_close(reached, values(y, reader, chosen), rtol=1e-3, atol=1e-4)


def surgeon_32(name: str) -> Surgeon:
    network = build_network(name).eval()
    return Surgeon(network, extract(network, torch.zeros(1, 3, 32, 32)))


def test_rewriting_a_layer_with_its_own_map_changes_nothing():
    network = twins()
    surgeon = surgeon_of(network)
    before = network(IMAGES)
    reader = next(r for r in readers(surgeon.analysis) if r.layer == "3")
    own = folded(network, reader)
    rewrite(network, reader, own, (torch.randn(5), torch.rand(5) + 0.5))
    torch.testing.assert_close(network(IMAGES), before, rtol=1e-4, atol=1e-5)


def _residual(moments: Moments, stay: list[int]) -> float:
    """Ridge objective of the best map of some inputs, by brute force."""
    matrix, target = ridged(moments.second), moments.second.double() @ moments.solution.double()
    best = torch.linalg.solve(matrix[stay][:, stay], target[stay])
    return -float((best * target[stay]).sum())


def test_the_cost_of_a_channel_is_the_residual_it_leaves():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(200, 13, generator=generator) @ torch.randn(13, 13, generator=generator)
    inputs[:, -1] = 1.0
    moments = Moments(
        inputs.t() @ inputs / 200, torch.randn(13, 4, generator=generator), metric=None
    )
    members = [torch.tensor([i]) for i in range(4)]
    state = Elimination(moments, members, taps=3)
    stay = list(range(13))
    for gone in (2, 0):
        alive = [i for i in range(4) if 3 * i in stay]
        whole = _residual(moments, stay)
        expected = [
            _residual(moments, [j for j in stay if j // 3 != i or j == 12]) - whole for i in alive
        ]
        torch.testing.assert_close(
            state.costs(alive), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9
        )
        state.drop(gone)
        stay = [j for j in stay if j // 3 != gone or j == 12]


def test_elimination_takes_what_others_can_make_up_for_first():
    surgeon = surgeon_of(twins())
    calibration = calibrated(surgeon, places=64)
    scores, curves = reconstruction(surgeon.analysis.traced, surgeon.analysis, calibration)
    gone_first = scores["0"].argsort()[:4].tolist()
    assert sorted(i % 4 for i in gone_first) == [0, 1, 2, 3]  # one of each pair
    curve = curves["0"]
    assert curve[4] < 0.05 * curve[8]
    assert (curve.diff() >= 0).all()


@pytest.mark.parametrize("way", ["gram", "sequential"])
def test_channels_that_others_can_make_up_for_are_lost_without_loss(way):
    network = twins()
    surgeon, before = surgeon_of(network), network(IMAGES)
    plan, keep = one_of_each_pair(surgeon)
    plain = surgeon.cut(plan).eval()
    if way == "gram":
        subnet = surgeon.cut(plan).eval()
        GramSolve(surgeon.analysis.graph, calibrated(surgeon, places=64))(subnet, keep)
    else:
        subnet = compensate(surgeon, plan, IMAGES, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        lost = float((plain(IMAGES) - before).square().mean())
        left = float((subnet(IMAGES) - before).square().mean())
    assert left < 0.01 * lost


def test_compensation_brings_a_residual_network_nearer_to_the_dense_one():
    torch.manual_seed(0)
    network = build_network("resnet20").eval()
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    surgeon = Surgeon(network, graph)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(48, 3, 32, 32, generator=generator)
    state = copy.deepcopy(network.state_dict())
    plan = ChannelSpace(graph, l1(network, graph), 0.5).uniform()

    def distance(subnet: nn.Module) -> float:
        return float((subnet.eval()(images) - network(images)).square().mean())

    with torch.no_grad():
        subnet = compensate(surgeon, plan, images, generator)
        assert distance(subnet) < 0.2 * distance(surgeon.cut(plan))
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_what_follows_a_removed_block_makes_up_for_it():
    torch.manual_seed(0)
    network = build_network("resnet20").eval()
    surgeon = Surgeon(network, extract(network, torch.zeros(1, 3, 32, 32)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(48, 3, 32, 32, generator=generator)
    plan = PruningPlan(removed_layers=frozenset({"layer1.1", "layer3.2.conv2"}))

    def distance(subnet: nn.Module) -> float:
        return float((subnet.eval()(images) - network(images)).square().mean())

    with torch.no_grad():
        subnet = compensate(surgeon, plan, images, generator)
        assert distance(subnet) < 0.5 * distance(surgeon.cut(plan))
    first = "conv1.weight"  # nothing before the removed block changes
    assert torch.equal(subnet.get_parameter(first), network.get_parameter(first))


def test_the_norms_of_a_compensated_subnet_have_the_statistics_they_would_measure():
    surgeon = surgeon_of(twins())
    plan, _ = one_of_each_pair(surgeon)
    subnet = compensate(surgeon, plan, IMAGES, torch.Generator().manual_seed(0)).eval()
    seen: list[Tensor] = []
    subnet.get_submodule("3").register_forward_hook(lambda m, x, y: seen.append(y))
    subnet(IMAGES)
    norm = subnet.get_submodule("4")
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=0.1, atol=0.05)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.1, atol=0.02)


def test_elimination_ends_with_every_channel():
    moments = Moments(torch.eye(7) + 0.1, torch.randn(7, 2))
    order, costs = eliminate([Elimination(moments, [torch.tensor([i]) for i in range(6)], 1)], 6)
    assert sorted(order) == list(range(6))
    assert len(costs) == 6


def test_the_allocation_cuts_where_it_costs_nothing():
    network = twins()
    graph = extract(network, IMAGES[:1])
    space = ChannelSpace(graph, l1(network, graph), 0.6)
    free = {"0": torch.zeros(9), "3": torch.linspace(0, 100, 6)}
    action = space.allocation(free)
    assert action[space.names.index("3")] == 1.0
    assert action[space.names.index("0")] < 1.0
    assert space.used(space.plan(action)) <= 0.6


def test_an_action_in_the_middle_stands_for_the_prior():
    network = twins()
    graph = extract(network, IMAGES[:1])
    prior = np.array([0.25, 0.9])
    with_prior = ChannelSpace(graph, l1(network, graph), 0.5, prior=prior)
    without = ChannelSpace(graph, l1(network, graph), 0.5)
    assert with_prior.plan(np.full(2, 0.5)) == without.plan(prior)


def test_half_of_the_images_are_mirrored():
    images = torch.rand(200, 3, 4, 5)
    seen = mirrored(images, torch.Generator().manual_seed(0))
    same = (seen == images).flatten(1).all(1)
    turned = (seen == images.flip(3)).flatten(1).all(1)
    assert (same ^ turned).all() and 70 < int(same.sum()) < 130


def test_updates_that_are_applied_together_give_the_costs_of_single_ones(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(200, 37, generator=generator) @ torch.randn(37, 37, generator=generator)
    gradients = torch.randn(50, 4, generator=generator)
    moments = Moments(
        inputs.t() @ inputs / 200,
        torch.randn(37, 4, generator=generator),
        gradients.t() @ gradients,
    )
    found = []
    for together in (1, 7, 1000):
        monkeypatch.setattr("gnnrl.pruning.compensation.elimination.TOGETHER", together)
        found.append(
            eliminate([Elimination(moments, [torch.tensor([i]) for i in range(12)], 3)], 12)
        )
    assert found[0][0] == found[1][0] == found[2][0]
    for _, costs in found[1:]:
        assert costs == pytest.approx(found[0][1], rel=1e-6)
