"""Plans scored after a short training: repeatable, charged for, and not on the network itself."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from gnnrl.data.augmentations import AUGMENTATIONS
from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.evaluation import short_training
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.evaluation.short_training import Trained
from gnnrl.evaluation.training_settings import ShortTraining
from gnnrl.graph.extract import extract
from gnnrl.graph.masks import packed
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.training.loop import train

SHAPE = (1, 20, 20)


@pytest.fixture(scope="module")
def setting():
    """Two classes that the side of a bright bar tells apart."""
    torch.manual_seed(0)
    labels = torch.arange(120) % 2
    pixels = torch.randint(0, 90, (120, *SHAPE), dtype=torch.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, :, slice(0, 8) if label else slice(12, 20)] += 150
    transform = Transform((0.5,), (0.3,), AUGMENTATIONS["none"])
    images = Images(pixels, labels, transform)
    network = build_network("basic_cnn_eighth", 2, SHAPE).eval()
    graph = extract(network, torch.zeros(1, *SHAPE))
    return network, graph, images.take(torch.arange(80)), images.take(torch.arange(80, 120))


def trained(setting, **settings):
    network, graph, train, reward = setting
    images, labels = next(iter(reward.batches(len(reward), torch.device("cpu"))))
    surgeon, own = Surgeon(network, graph), RewardSettings(kind="accuracy", statistics="batch")
    one_shot = OneShot(surgeon, images, labels, own)
    return Trained(one_shot, images, train, ShortTraining(batch_size=20, **settings))


def test_training_helps_leaves_the_network_alone_and_repeats_itself(setting):
    network, graph, *_ = setting
    before = copy.deepcopy(network.state_dict())
    plan = ChannelSpace(graph, l1(network, graph), 0.5).uniform()  # of any space
    evaluate = trained(setting, epochs=4, learning_rate=0.05)
    first, again = evaluate([plan, plan])
    assert first == again and first.accuracy > 0.9
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def masks(graph, kept=0.1):
    draw = np.random.default_rng(0)
    shapes = {name: graph.parameters[n.parameters[0]].shape for name, n in graph.layers.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return {name: packed(draw.random(size) < kept) for name, size in sizes.items()}


@pytest.mark.parametrize("kind", ["masks", "weight_sparsity"])
def test_weights_that_a_plan_sets_to_zero_stay_zero_in_training(kind, setting, monkeypatch):
    graph = setting[1]
    zeros = masks(graph) if kind == "masks" else dict.fromkeys(graph.layers, 0.9)
    plan, seen = PruningPlan(**{kind: zeros}), []

    def watched(subnet, *given, **options):
        before = {name: p.detach().clone() for name, p in subnet.named_parameters()}
        train(subnet, *given, **options)
        seen.append((before, dict(subnet.named_parameters())))

    monkeypatch.setattr(short_training, "train", watched)
    trained(setting, epochs=1, learning_rate=0.05)([plan])
    ((before, after),) = seen
    for node in graph.layers.values():
        name = node.parameters[0]
        assert 0.05 < (after[name] != 0).float().mean() < 0.2
        assert torch.equal(after[name] == 0, before[name] == 0)
        assert not torch.equal(after[name], before[name])


def test_training_is_charged_and_may_be_a_part_of_an_epoch(setting):
    assert trained(setting, epochs=2).cost == (3 * 80 * 2 + 40) / 500
    assert trained(setting, epochs=0.25).cost == (3 * 20 + 40) / 500
    assert trained(setting, epochs=1.5).cost == (3 * 60 * 2 + 40) / 500


def test_the_learning_rate_is_constant_or_falls_as_its_schedule_says(setting, monkeypatch):
    rates = []

    def watched(subnet, *given, **options):
        history = train(subnet, *given, **options).history
        rates.append([epoch["learning_rate"] for epoch in history])

    monkeypatch.setattr(short_training, "train", watched)
    network, graph, *_ = setting
    plan = ChannelSpace(graph, l1(network, graph), 0.5).uniform()
    trained(setting, epochs=3, learning_rate=0.05)([plan])
    trained(setting, epochs=3, learning_rate=0.05, schedule="one_cycle")([plan])
    constant, cycle = rates
    assert constant == [0.05] * 3
    assert cycle[-1] < cycle[1] <= 0.05


def test_a_subnet_that_diverges_is_a_bad_plan_and_not_an_error(setting):
    network, graph, *_ = setting
    plan = ChannelSpace(graph, l1(network, graph), 0.5).uniform()
    (found,) = trained(setting, epochs=3, learning_rate=1e9)([plan])
    assert found.status == "diverged" and found.reward < 0


def test_no_training_at_all_is_refused():
    with pytest.raises(UserError, match="'epochs' must be greater than 0, got 0"):
        ShortTraining(epochs=0)
