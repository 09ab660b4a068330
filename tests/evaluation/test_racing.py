"""Races: losers stop early, winners are evaluated as without a race."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.evaluation.base import Evaluation, Evaluator
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.racing import STOPPED, Racing, behind
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import recalibrate
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace
from tests.rl.toys import Widths

IMAGES = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PLANS = 6


@pytest.fixture(scope="module")
def race():
    """A race, its full evaluator, and plans; the labels are what the dense network says."""
    torch.manual_seed(0)
    network = build_network("resnet20")
    recalibrate(network, [IMAGES])
    network.eval().linear.weight.data *= 20.0
    labels = network(IMAGES).argmax(1)
    graph = extract(network, IMAGES[:1])
    surgeon, settings = Surgeon(network, graph), RewardSettings(kind="loss", statistics="batch")
    first, full = (OneShot(surgeon, IMAGES[:n], labels[:n], settings) for n in (20, 40))
    scores, generator = l1(network, graph), torch.Generator().manual_seed(1)
    spaces = [ChannelSpace(graph, scores, budget) for budget in (0.3, 0.9)]
    plans = [spaces[i % 2].sample(generator) for i in range(PLANS)]
    return Racing(first, full), full, plans


def test_who_goes_on_is_evaluated_as_without_a_race_and_the_best_goes_on(race):
    racing, full, plans = race
    found, plain = racing(plans), full(plans)
    stopped = [e.status == STOPPED for e in found]
    assert 0 < sum(stopped) <= PLANS // 2
    best = max(range(PLANS), key=lambda i: plain[i].reward)
    assert not stopped[best]
    for one, other, stop in zip(found, plain, stopped, strict=True):
        assert stop or one.reward == other.reward
        assert one.reward < plain[best].reward or one == found[best]
        assert one.cost == pytest.approx(20 / 500 if stop else 60 / 500)


def test_the_order_of_the_plans_plays_no_part(race):
    racing, _, plans = race
    assert racing(plans) == racing(plans[::-1])[::-1]


def test_a_plan_alone_does_not_race(race):
    racing, full, plans = race
    assert racing(plans[:1]) == full(plans[:1])


def test_only_those_clearly_behind_stop_and_the_worst_of_them_first():
    noise = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    near = behind(noise * 1.0 + torch.tensor([0.0, 0.01, 0.02, 0.01, 0.0])[:, None])
    assert near.sum() <= 1
    far = behind(noise * 0.1 + torch.tensor([0.0, 1.0, 3.0, 2.0, 0.01])[:, None])
    assert np.flatnonzero(far).tolist() == [2, 3]  # half of five at most


def test_a_plan_without_finite_numbers_stops():
    losses = torch.full((2, 10), 1.0)
    losses[1] = 1e6
    assert behind(losses).tolist() == [False, True]


def test_the_loop_hands_a_race_the_plans_of_a_batch_together():
    sizes = []

    class Watched(Evaluator):
        batched = True

        def __call__(self, plans):
            sizes.append(len(plans))
            return [Evaluation(env.space.reward(decided.plan)) for decided in plans]

    env = PruningEnv(Widths(), Watched())
    search(env, build_agent("random", env), evaluations=12, batch=8)
    assert sizes == [1, 8, 2, 1]
