"""Batch norm of a cut network gives what the dense one gives on the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.graph.extract import extract
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.importance import l1
from gnnrl.pruning.matching import match, norm_moments, recalibrate_matched
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.spaces.channels import ChannelSpace

IMAGES = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network("resnet20")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.normal_()  # negative scales among them
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.fixture(scope="module")
def surgeon(network) -> Surgeon:
    return Surgeon(network, extract(network, IMAGES[:1]))


def test_the_dense_network_matched_to_itself_stays_as_it_is(network, surgeon):
    graph = surgeon.analysis.graph
    subnet = surgeon.cut(PruningPlan()).eval()
    match(subnet, norm_moments(network, graph, IMAGES), np.ones(graph.num_units, dtype=bool))
    with batch_statistics(subnet), torch.no_grad():
        torch.testing.assert_close(subnet(IMAGES), network(IMAGES), rtol=1e-2, atol=1e-2)


def test_every_norm_of_a_matched_subnet_gives_the_dense_moments(network, surgeon):
    graph = surgeon.analysis.graph
    plan = ChannelSpace(graph, l1(network, graph), 0.5).uniform()
    subnet = surgeon.cut(plan).eval()
    recalibrate_matched(network, graph, subnet, plan, IMAGES)
    keep = kept_units(graph, plan.kept)
    wanted, found = (
        norm_moments(network, graph, IMAGES),
        norm_moments(subnet, extract(subnet, IMAGES[:1]), IMAGES),
    )
    for name, dense in wanted.items():
        stays = np.append(keep, True)[dense.units]
        torch.testing.assert_close(found[name].mean, dense.mean[stays], rtol=0.02, atol=0.02)
        torch.testing.assert_close(found[name].std, dense.std[stays], rtol=0.05, atol=0.02)


def test_a_network_without_a_part_is_matched_too(network, surgeon):
    graph = surgeon.analysis.graph
    plan = PruningPlan(removed_layers=frozenset({"layer1.1"}))
    subnet = surgeon.cut(plan).eval()
    recalibrate_matched(network, graph, subnet, plan, IMAGES)
    assert torch.isfinite(subnet(IMAGES)).all()


def test_the_dense_network_is_left_as_it_was(network, surgeon):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    norm_moments(network, surgeon.analysis.graph, IMAGES)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
