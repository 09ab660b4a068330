"""A second look at the best plans of a search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided, Evaluation, Evaluator, FromFunction
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.rescoring import Rescoring
from tests.rl.toys import Widths


class Noisy(Evaluator):
    """True reward plus noise that belongs to the images and the plan."""

    def __init__(self, space, seed, images=100, noise=0.1):
        self.space, self.seed, self.images, self.noise = space, seed, images, noise
        self.cost = images / 500

    def evaluate(self, plan):
        own = np.random.default_rng([self.seed, int(plan.digest, 16)])
        error = self.noise * own.standard_normal() / np.sqrt(self.images)
        return Evaluation(float(self.space.reward(plan) + 10 * error), cost=self.cost)

    def __call__(self, plans):
        return [self.evaluate(Decided.of(plan).plan) for plan in plans]

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


def test_leaders_are_the_best_plans_in_order_and_the_one_that_the_search_started_from():
    last = set()
    for seed in range(6):
        _, found = searched(seed)
        rewards = {row["plan"]: row["reward"] for row in found.evaluations}
        best, first = sorted(rewards.values(), reverse=True), found.evaluations[0]["reward"]
        expected = best[:4] if first in best[:4] else [*best[:3], first]
        assert [reward for _, reward in found.leaders] == expected
        assert found.leaders[0][0] == found.plan
        last.add(first in best[:4])
    assert last == {True, False}  # both were tried


def test_the_second_look_weighs_images_alike_and_takes_the_best():
    env, found = searched(0)
    rescoring = Rescoring.of(env.evaluate, 4, *more())
    again = rescoring.applied(found)
    for row in again.rescored:
        assert row["reward"] == pytest.approx(0.2 * row["first"] + 0.8 * row["second"])
    best = max(again.rescored, key=lambda row: row["reward"])
    assert again.plan.digest == best["plan"] and again.reward == best["reward"]
    assert rescoring.cost == 4  # 4 plans on 400 images are 3.2 evaluations
    assert sum(row["cost"] for row in again.rescored) == pytest.approx(3.2)


def test_a_second_look_finds_better_plans_than_one_noisy_reward():
    gain = []
    for seed in range(20):
        env, found = searched(seed, leaders=8)
        again = Rescoring.of(env.evaluate, 8, *more(2000)).applied(found)
        gain.append(env.space.reward(again.plan) - env.space.reward(found.plan))
    assert np.mean(gain) > 0


def test_leaders_survive_a_kill(tmp_path):
    _, whole = searched(0)
    searched(0, journal=tmp_path)
    _, again = searched(0, journal=tmp_path)
    assert again.leaders == whole.leaders


def test_what_cannot_score_other_images_is_refused_before_a_search():
    with pytest.raises(UserError, match=r"take search\.rescore out"):
        Rescoring.of(FromFunction(lambda plans: []), 4, *more())


def test_a_search_has_something_left_to_spend():
    rescoring = Rescoring.of(Noisy(Widths(), 0), 4, *more())
    assert rescoring.left_of(6) == 2
    with pytest.raises(UserError, match=r"search\.rescore costs 4 of 4 evaluations"):
        rescoring.left_of(4)
