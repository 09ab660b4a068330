"""Plans scored as they are shipped: refitted layer by layer, then run on the reward images."""

from __future__ import annotations

import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.racing import Racing
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import recalibrate
from gnnrl.pruning.compensation.sequential import Refit, compensate
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator
from gnnrl.search.rescoring import Rescoring
from gnnrl.search.spaces.channels import ChannelSpace
from tests.rl.toys import Widths
from tests.search.test_rescoring import Noisy

IMAGES = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    network = build_network("resnet20", input_shape=(3, 16, 16))
    recalibrate(network, [IMAGES])
    network.eval().linear.weight.data *= 5.0
    graph = extract(network, IMAGES[:1])
    space = ChannelSpace(graph, l1(network, graph), 0.4)
    settings = RewardSettings(kind="jensen_shannon")
    surgeon, labels = Surgeon(network, graph), network(IMAGES).argmax(1)
    return surgeon, OneShot(surgeon, IMAGES[:20], labels[:20], settings), labels, space


def test_subnets_are_those_of_compensate_where_every_place_is_used(world):
    surgeon, _, _, space = world
    plan, small = space.uniform(), IMAGES[:, :, :5, :5]
    refit = Refit(surgeon, small, generator(0, "places"))
    with torch.no_grad():
        for _ in range(2):  # a plan leaves nothing behind for the next one
            refit(space.sample(torch.Generator().manual_seed(1)))
            once = refit(plan)(IMAGES)
        plain = compensate(surgeon, plan, small, generator(0, "places"))(IMAGES)
    torch.testing.assert_close(once, plain)


def test_refitted_subnets_are_closer_to_the_dense_network_and_charged_for_their_images(world):
    _, scorer, labels, space = world
    again = Rescoring.of(scorer, 4, IMAGES[20:], labels[20:], IMAGES, 0)
    (found,) = again.evaluator([space.uniform()])
    (plain,) = scorer.on(IMAGES[20:], labels[20:])([space.uniform()])
    assert found.reward > plain.reward and again.share == 1.0
    assert found.cost == pytest.approx((28 + 48 * 1.25) / 500)


def test_a_race_is_rescored_by_refitting_as_well(world):
    _, scorer, labels, _ = world
    racing = Racing(scorer.on(IMAGES[:8], labels[:8]), scorer)
    again = Rescoring.of(racing, 4, IMAGES[20:], labels[20:], IMAGES, 0)
    assert again.evaluator.images == 28


def test_an_evaluator_of_one_s_own_is_not_refitted():
    with pytest.raises(UserError, match=r"search\.rescore\.compensation sequential.*Noisy"):
        Rescoring.of(Noisy(Widths(), 0), 4, torch.zeros(4, 1), torch.zeros(4), IMAGES, 0)
