"""Norms are measured where a network normalises, however it writes that down."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.extract import extract
from gnnrl.pruning.batch_norm import batch_statistics, recalibrate
from gnnrl.pruning.matching import norm_moments, recalibrate_matched
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon, prune

IMAGES = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(0)) + 0.5
PLAN = PruningPlan(kept={"0": (0, 2, 3, 5)})


class Bare(nn.BatchNorm2d):
    pass


class WithActivation(nn.BatchNorm2d):
    """As timm's `BatchNormAct2d`."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, x):
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
        training = self.training or (self.running_mean is None and self.running_var is None)
        known = not self.training or self.track_running_stats
        mean, variance = (self.running_mean, self.running_var) if known else (None, None)
        out = F.batch_norm(x, mean, variance, self.weight, self.bias, training, factor, self.eps)
        return self.act(out)


class ByHand(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x):
        state = self.running_mean, self.running_var, self.weight, self.bias
        return F.relu(F.batch_norm(x, *state, self.training, 0.1, 1e-5))


def usual(width: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


KINDS = {
    "usual": usual,
    "bare": Bare,
    "activation": WithActivation,
    "by hand": ByHand,
    "synchronised": nn.SyncBatchNorm,
}


def network_of(norm) -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 8, 3), norm(8), nn.Conv2d(8, 8, 3), norm(8)
    network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -1.0, 1.0)
    network.eval()
    recalibrate(network, [IMAGES] * 3)
    return network


@pytest.fixture(params=KINDS, scope="module")
def network(request) -> nn.Module:
    return network_of(KINDS[request.param])


@pytest.fixture(scope="module")
def surgeon(network) -> Surgeon:
    return Surgeon(network, extract(network, IMAGES[:1]))


@pytest.mark.parametrize("dense", ["the network", "the traced network"])
def test_an_uncut_subnet_matched_to_the_network_answers_as_it_does(network, surgeon, dense):
    subnet = surgeon.cut(PruningPlan()).eval()
    source = network if dense == "the network" else surgeon.analysis.traced
    recalibrate_matched(source, surgeon.graph, subnet, PruningPlan(), IMAGES)
    torch.testing.assert_close(subnet(IMAGES), network(IMAGES), rtol=2e-2, atol=2e-2)


def test_norms_of_a_subnet_give_the_moments_of_the_network(network, surgeon):
    subnet = surgeon.cut(PLAN).eval()
    recalibrate_matched(network, surgeon.graph, subnet, PLAN, IMAGES)
    ours = norm_moments(subnet, extract(subnet, IMAGES[:1]), IMAGES)
    theirs = norm_moments(network, surgeon.graph, IMAGES)
    assert ours.keys() == theirs.keys() and len(theirs) == 2
    first = next(iter(theirs))
    kept = list(PLAN.kept["0"])
    torch.testing.assert_close(ours[first].mean, theirs[first].mean[kept], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ours[first].std, theirs[first].std[kept], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("images", [0, 64])
def test_a_search_sees_the_uncut_network_as_it_is(network, surgeon, images):
    settings = RewardSettings(kind="accuracy", statistics="matched", statistics_images=images)
    labels = network(IMAGES).argmax(1)
    found = OneShot(surgeon, IMAGES, labels, settings).evaluate(PruningPlan())
    assert found.accuracy > 0.95


def test_a_search_sees_norms_inside_parts_that_are_left_whole():
    network = network_of(WithActivation)
    surgeon = Surgeon(network, extract(network, IMAGES[:1], protect=["3"]))
    settings = RewardSettings(kind="accuracy", statistics="matched", statistics_images=64)
    found = OneShot(surgeon, IMAGES, network(IMAGES).argmax(1), settings).evaluate(PruningPlan())
    assert found.accuracy > 0.95


def test_recalibration_gives_the_statistics_of_the_images(network):
    subnet = copy.deepcopy(network)
    recalibrate(subnet, [IMAGES])
    made = network[0](IMAGES)
    means = [b for n, b in subnet.named_buffers() if n.endswith("running_mean")]
    torch.testing.assert_close(means[0], made.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


ON_ONE_DEVICE = [kind for kind in KINDS if kind != "synchronised"]


@pytest.mark.parametrize("network", ON_ONE_DEVICE, indirect=True, scope="module")
def test_a_subnet_trains_its_norms_as_the_network_does(network, surgeon):
    ours, theirs = surgeon.cut(PruningPlan()).train(), copy.deepcopy(network).train()
    torch.testing.assert_close(ours(IMAGES), theirs(IMAGES))
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, msg=name)


def test_one_frozen_norm_stays_frozen():
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True):
            super().train(mode)
            self[1].eval()
            return self

    network = Frozen(nn.Conv2d(3, 8, 3), Bare(8), nn.Conv2d(8, 2, 3))
    subnet = prune(network.train(), extract(network, IMAGES[:1]), PruningPlan()).train()
    before = subnet.get_buffer("1.running_mean").clone()
    torch.testing.assert_close(subnet(IMAGES), network(IMAGES))
    torch.testing.assert_close(subnet.get_buffer("1.running_mean"), before)


def test_instance_norms_with_running_statistics_are_measured_and_still_use_them():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True))
    network.eval()
    recalibrate(network, [IMAGES])
    made = network[0](IMAGES)
    torch.testing.assert_close(network[1].running_mean, made.mean((0, 2, 3)))
    spread = made.var((2, 3)).mean(0)
    torch.testing.assert_close(network[1].running_var, spread)
    assert network(IMAGES)[0].mean((1, 2)).abs().max() > 0.01  # not by the statistics of one image


def test_norms_that_cannot_be_measured_are_named():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8), nn.Conv2d(8, 2, 1)).eval()
    with pytest.warns(UserWarning, match=r"1 norms keep the statistics .*\(1\)"):
        recalibrate(network, [IMAGES])


def test_batch_statistics_are_those_of_one_network_only():
    one, other = network_of(Bare), network_of(Bare)
    other[1].running_mean.add_(5.0)
    with torch.no_grad():
        before = other(IMAGES)
        with batch_statistics(one):
            torch.testing.assert_close(other(IMAGES), before)
