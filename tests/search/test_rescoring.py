"""A second look at the best plans of a search."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.rescoring import price, rescored
from tests.rl.toys import Widths


class Noisy:
    """True reward plus noise that belongs to the images and the plan."""

    graph = None

    def __init__(self, space, seed, images=100, noise=0.1):
        self.space, self.seed, self.images, self.noise = space, seed, images, noise

    def evaluate(self, plan):
        own = np.random.default_rng([self.seed, int(plan.digest, 16)])
        error = self.noise * own.standard_normal() / np.sqrt(self.images)
        return Evaluation(float(self.space.reward(plan) + 10 * error), cost=self.images / 500)

    def __call__(self, plans):
        return [self.evaluate(plan) for plan in plans]

    def on(self, images, labels):
        return Noisy(self.space, int(labels[0]), len(images), self.noise)


def searched(seed, leaders=4, journal=None):
    space = Widths()
    env = PruningEnv(space, Noisy(space, seed))
    agent = build_agent("random", env, seed=seed)
    return env, search(
        env, agent, evaluations=6, batch=8, seed=seed, leaders=leaders, journal=journal
    )


def more(count=400):
    return torch.zeros(count, 1), torch.full((count,), 99)


def test_leaders_are_the_best_plans_in_order():
    _, found = searched(0)
    rewards = sorted({r["plan"]: r["reward"] for r in found.evaluations}.values(), reverse=True)
    assert [reward for _, reward in found.leaders] == rewards[:4]
    assert found.leaders[0][0] == found.plan


def test_the_second_look_weighs_images_alike_and_takes_the_best():
    env, found = searched(0)
    again = rescored(found, env.evaluate, *more())
    for row in again.rescored:
        assert row["reward"] == pytest.approx(0.2 * row["first"] + 0.8 * row["second"])
    best = max(again.rescored, key=lambda row: row["reward"])
    assert again.plan.digest == best["plan"] and again.reward == best["reward"]
    assert sum(row["cost"] for row in again.rescored) == pytest.approx(price(4, 400), abs=1)


def test_a_second_look_finds_better_plans_than_one_noisy_reward():
    gain = []
    for seed in range(20):
        env, found = searched(seed, leaders=8)
        again = rescored(found, env.evaluate, *more(2000))
        gain.append(env.space.reward(again.plan) - env.space.reward(found.plan))
    assert np.mean(gain) > 0


def test_leaders_survive_a_kill(tmp_path):
    _, whole = searched(0)
    searched(0, journal=tmp_path)
    _, again = searched(0, journal=tmp_path)
    assert again.leaders == whole.leaders


def test_what_cannot_look_again_is_refused():
    _, found = searched(0)
    with pytest.raises(UserError, match=r"take search\.rescore out"):
        rescored(found, SimpleNamespace(), *more())
