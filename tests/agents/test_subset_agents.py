"""Agents that choose a number of filters: they find the best ones, start again, are resumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from gnnrl.agents.additive import Additive
from gnnrl.agents.annealing_subset import SwapAnnealing
from gnnrl.agents.registry import build_agent
from gnnrl.agents.settings import SwapSettings
from gnnrl.agents.thompson import Beliefs
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.observation import digest
from gnnrl.rl.subsets import Choice
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from tests.rl.toys import Plan, ring

SMALL = {"hidden": 8, "layers": 1, "encoder": "plain"}
SETTINGS = {"reinforce": SMALL, "annealing": {}, "random": {}}


class Chosen:
    """Half of `size` things in two parts stay; each has a value that its features do not tell: the
    reward is the sum of the values kept over that of the best, `twisted` by pairs."""

    action_kind = "subset"

    def __init__(self, size: int, seed: int = 0, twisted: float = 0.0) -> None:
        self.size, self.twisted = size, twisted
        drawn = np.random.default_rng(seed)
        self.values, self.pairs = drawn.random(size), drawn.random(size)
        self.optimum = float(np.sort(self.values)[-(size // 2) :].sum())
        self.graph = ring(torch.Generator().manual_seed(seed), size)
        self.graph.keep, self.graph.least = torch.tensor([size // 2]), torch.tensor([1, 1])
        self.graph.part = (torch.arange(size) >= size // 2).long()

    def plan(self, action: np.ndarray) -> Plan:
        return Plan(tuple(np.flatnonzero(action).tolist()))

    def observation(self, keep: np.ndarray | None = None) -> Data:
        return self.graph

    def evaluate(self, plans: Sequence[Any]) -> list[Evaluation]:
        return [Evaluation(self.reward(np.array(plan.keep)), 0.0) for plan in plans]

    def reward(self, kept: np.ndarray) -> float:
        both = (kept[1:] - kept[:-1] == 1) * self.pairs[kept[1:]]
        return float(self.values[kept].sum() / self.optimum + self.twisted * both.mean())


def best_of(
    name: str, evaluations: int, space: Chosen, seed: int = 0, batch: int = 8, **settings: Any
) -> float:
    env = PruningEnv(space, space.evaluate)
    agent = build_agent(name, env, seed=seed, **{**SETTINGS[name], **settings})
    return search(env, agent, evaluations=evaluations, batch=batch, seed=seed).reward


@pytest.mark.parametrize("name", ["reinforce", "annealing"])
def test_the_best_20_of_40_are_found(name):
    assert np.mean([best_of(name, 150, Chosen(40), seed) for seed in range(3)]) >= 0.985
    assert best_of("random", 150, Chosen(40)) < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reinforce", "annealing"])
def test_the_best_480_of_960_are_found_within_3000_evaluations(name):
    assert best_of(name, 3000, Chosen(960), batch=16) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reinforce", "annealing"])
def test_where_values_do_not_simply_add_up_they_still_beat_chance(name):
    space = Chosen(60, twisted=0.3)
    assert best_of(name, 300, space) > best_of("random", 300, space) + 0.1


@pytest.mark.slow
def test_the_baseline_alone_learns_as_well_but_less():
    space = Chosen(120)
    plain = best_of("reinforce", 420, space, credit=False)
    assert best_of("random", 420, space) < plain < best_of("reinforce", 420, space)


@pytest.mark.parametrize("name", ["reinforce", "annealing"])
def test_the_same_seed_gives_the_same_search(name):
    runs = [best_of(name, 40, Chosen(20), seed=3) for _ in range(2)]
    assert runs[0] == runs[1]


class Killed(Exception):
    """In the middle of a search."""


@pytest.mark.parametrize("name", ["reinforce", "annealing"])
def test_a_search_that_is_killed_ends_as_one_that_is_not(name, tmp_path):
    def run(journal, limit=None):
        space, count = Chosen(40), [0]

        def evaluate(plans):
            count[0] += len(plans)
            if limit is not None and count[0] > limit:
                raise Killed
            return space.evaluate(plans)

        env = PruningEnv(space, evaluate)
        agent = build_agent(name, env, seed=0, **SETTINGS[name])
        return search(env, agent, evaluations=60, batch=8, seed=0, journal=journal)

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", limit=37)
    resumed = run(tmp_path / "killed")
    assert resumed.evaluations == whole.evaluations and resumed.plan == whole.plan


def test_what_is_learned_of_decisions_holds_although_the_last_digits_of_features_differ():
    space = Chosen(20)
    env = PruningEnv(space, space.evaluate)
    agent = build_agent("reinforce", env, **SMALL)
    search(env, agent, evaluations=60, batch=8, seed=0)
    near, other = space.graph.clone(), space.graph.clone()
    near.x = near.x * (1 + 1e-7)
    other.part = 1 - other.part
    assert digest(near) != digest(space.graph)
    assert torch.allclose(agent.scores(near), agent.scores(space.graph), atol=1e-4)
    assert not torch.allclose(agent.scores(other), agent.scores(space.graph), atol=1e-4)


def test_annealing_goes_back_to_the_best_when_nothing_gets_better():
    agent = SwapAnnealing(SwapSettings(patience=5, cooling=0.5, reheat=0.25))
    for number in range(1, 8):
        agent._cool(torch.tensor([number == 1, True]), 1.0 if number == 1 else 0.0)
    assert agent.restarts == 1 and agent.reward == 1.0
    assert agent.current.tolist() == [True, True]
    assert agent.heat == pytest.approx(0.25 * 0.5)


def test_the_temperature_takes_a_move_of_average_loss_as_often_as_asked_for():
    agent = SwapAnnealing(SwapSettings(acceptance=0.3))
    agent.losses = [0.1, 0.3]
    taken = sum(agent._accepts(0.2) for _ in range(2000)) / 2000
    assert taken == pytest.approx(0.3, abs=0.04)
    assert agent._accepts(0.0) and agent._accepts(-1.0)


def test_swaps_shrink_with_the_temperature_and_leave_the_number_and_the_floors():
    agent, ask = SwapAnnealing(SwapSettings(learned=False)), _ask(40)
    chosen, generator = torch.arange(40) < 20, torch.Generator().manual_seed(0)
    sizes = []
    for heat in (1.0, 0.5, 0.1, 0.001):
        agent.heat = heat
        moved = agent._move(chosen, ask, generator)
        assert int(moved.sum()) == 20 and moved[:4].sum() >= 2
        sizes.append(int((moved & ~chosen).sum()))
    assert sizes == [5, 2, 1, 1]


def _ask(size: int) -> Choice:
    part = (torch.arange(size) >= 4).long()
    return Choice(size // 2, part, torch.tensor([2, 1]))


def test_values_of_decisions_are_learned_from_moves():
    generator, beliefs = torch.Generator().manual_seed(0), Beliefs()
    true = torch.randn(12, generator=generator, dtype=torch.float64)
    for _ in range(300):
        before, after = (torch.rand(12, generator=generator) < 0.5 for _ in range(2))
        beliefs.learn(before, after, float(true @ (after.double() - before.double())))
    torch.testing.assert_close(beliefs.mean, true, rtol=0, atol=0.02)


def test_a_sum_is_recovered_from_subsets_and_a_constant_says_nothing():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(20, generator=generator, dtype=torch.float64)
    chosen = torch.rand(80, 20, generator=generator) < 0.5
    part = (torch.arange(20) >= 10).long()
    model = Additive(1.0)
    model.add(chosen, chosen.double() @ true + 3.0, part)
    torch.testing.assert_close(model.value, true, rtol=0, atol=1e-3)
    flat = Additive(1.0)
    flat.add(chosen, torch.ones(80), part)
    assert flat.value.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("annealing", {"acceptance": 1.0}),
        ("annealing", {"patience": 0}),
        ("reinforce", {"credit_decay": 0.0}),
        ("reinforce", {"learning_rate": 0.0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, settings):
    space = Chosen(10)
    with pytest.raises(UserError, match=next(iter(settings))):
        build_agent(name, PruningEnv(space, space.evaluate), **settings)
