"""The loop: budget, cache, determinism, and a search that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation, FromFunction
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from tests.rl.toys import Target, Widths

TINY = {"hidden": 8, "layers": 1}
AGENTS = {
    "a3c": TINY,
    "annealing": {},
    "ddpg": {**TINY, "max_updates": 3, "batch_size": 16},
    "evolution": {},
    "ppo": {**TINY, "n_epochs": 2},
    "random": {},
    "reinforce": TINY,
    "uniform": {},
}


class Pruning(PruningEnv):
    """Pruning of toy widths which counts what it evaluates."""

    def __init__(self, max_steps=1, in_turn=False):
        self.evaluated = []
        super().__init__(Widths(), self.rate, max_steps, in_turn)

    def rate(self, plans):
        self.evaluated += plans
        return [Evaluation(self.space.reward(plan), accuracy=0.5) for plan in plans]


def run(name="random", evaluations=30, batch=8, env=None, encoder=None, **options):
    env = env or Pruning()
    chosen = {} if encoder is None else {"encoder": encoder}
    agent = build_agent(name, env, seed=0, **AGENTS[name], **chosen)
    return search(env, agent, evaluations=evaluations, batch=batch, seed=0, **options)


def test_the_best_plan_of_the_rows_is_returned():
    found = run()
    rewards = [row["reward"] for row in found.evaluations]
    best = found.evaluations[int(np.argmax(rewards))]
    assert found.reward == max(rewards) and found.plan.digest == best["plan"]
    assert [row["best"] for row in found.evaluations] == np.maximum.accumulate(rewards).tolist()


def test_every_evaluation_is_spent_and_none_more():
    env = Pruning()
    found = run(env=env)
    assert len(env.evaluated) == len(found.evaluations) == 30
    assert [h["spent"] for h in found.history] == [9, 17, 25, 29]


def test_a_plan_is_evaluated_once_and_the_agent_that_repeats_itself_ends_the_search():
    env = Pruning()
    found = run("uniform", env=env)
    assert len(env.evaluated) == 1
    cached = [row["cached"] for row in found.evaluations]
    assert not cached[0] and all(cached[1:])


def test_the_first_evaluation_is_where_the_agent_starts():
    env = Pruning()
    agent = build_agent("ppo", env, seed=0, **AGENTS["ppo"])
    (decision,) = agent.act([env.reset()[0]], torch.Generator(), greedy=True)
    found = search(env, agent, evaluations=20, batch=8, seed=0)
    assert env.space.plan(decision.action).digest == found.evaluations[0]["plan"]
    assert found.reward >= found.evaluations[0]["reward"]


def test_the_last_evaluation_is_the_greedy_decision():
    found = run("ppo", evaluations=20)
    env = Pruning()
    (decision,) = found.agent.act([env.reset()[0]], torch.Generator(), greedy=True)
    assert env.space.plan(decision.action).digest == found.evaluations[-1]["plan"]


def test_cost_is_charged_in_evaluation_equivalents():
    env = Pruning()
    rate = FromFunction(lambda ps: [Evaluation(env.space.reward(p), cost=0.5) for p in ps])
    env.evaluate, rate.cost = rate, 0.5
    found = run(env=env, evaluations=10)
    assert len(found.evaluations) == 19  # 18 at one half, and the last greedy one


def test_preparation_is_charged():
    env = Pruning()
    agent = build_agent("random", env)
    agent.prepare = lambda env: 12.5
    found = search(env, agent, evaluations=20, batch=4, seed=0)
    assert len(found.evaluations) == 7  # an eighth would be half an evaluation too many


@pytest.mark.parametrize("cost", [0.3, 0.6, 1.0, 1.7, 2.0, 7.0])
@pytest.mark.parametrize("before", [0.0, 2.6])
def test_no_more_is_spent_than_asked_and_no_plan_that_could_be_paid_is_left_out(cost, before):
    env = Pruning()
    rate = FromFunction(lambda ps: [Evaluation(env.space.reward(p), cost=cost) for p in ps])
    env.evaluate, rate.cost = rate, cost
    agent = build_agent("random", env)
    agent.prepare = lambda env: before
    found = search(env, agent, evaluations=20, batch=8, seed=0)
    spent = before + sum(row["cost"] for row in found.evaluations)
    assert 20 - max(cost, 1) - 1e-9 <= spent <= 20 + 1e-9


def test_a_search_that_cannot_pay_one_plan_is_refused_before_it_evaluates():
    env = Pruning()
    rate = FromFunction(lambda plans: pytest.fail("it evaluates"))
    env.evaluate, rate.cost = rate, 7.0
    with pytest.raises(UserError, match=r"one plan cost 7 each: allow at least 7"):
        search(env, build_agent("random", env), evaluations=6, batch=8, seed=0)


def test_a_batch_can_be_evaluated_together():
    sizes = []
    env = Pruning()
    rate = env.rate
    env.evaluate = FromFunction(lambda plans: sizes.append(len(plans)) or rate(plans))
    env.evaluate.batched = True
    whole = run(env=env)
    assert sizes == [1, 8, 8, 8, 4, 1]
    assert whole.evaluations == run().evaluations


def test_an_evaluator_that_is_faster_with_several_plans_gets_so_many():
    sizes, env = [], Pruning()
    rate = env.rate
    env.evaluate = FromFunction(lambda plans: sizes.append(len(plans)) or rate(plans))
    env.evaluate.together = 3
    whole = run(env=env)
    assert sizes == [1, *(3, 3, 2) * 3, 3, 1, 1]
    assert whole.evaluations == run().evaluations


ONE_ACTION = ("annealing", "evolution")  # their episodes have one step


@pytest.mark.parametrize(
    "name, steps", [(n, s) for n in AGENTS for s in (1, 3) if s == 1 or n not in ONE_ACTION]
)
def test_the_same_seed_gives_the_same_search(name, steps):
    first, again = (run(name, 20, env=Pruning(steps)) for _ in range(2))
    assert first.evaluations == again.evaluations and first.history == again.history
    assert_same_state(first.agent.state_dict(), again.agent.state_dict())


def assert_same_state(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_state(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same_state(a, b)
    else:
        assert one == other


class Killed(Exception):
    """Stands for a kill between two evaluations."""


@cache
def uninterrupted(name):
    return run(name)


@pytest.mark.parametrize(
    "name, after",
    # uniform evaluates one plan only
    [(n, k) for n in AGENTS for k in (0, 3, 9, 28) if k == 0 or n != "uniform"],
)
def test_a_search_cut_short_anywhere_goes_on_as_if_it_had_not_been(name, after, tmp_path):
    whole = uninterrupted(name)
    env = Pruning()
    rate = env.rate

    def fragile(plans):
        if len(env.evaluated) == after:
            raise Killed
        return rate(plans)

    env.evaluate = fragile
    with pytest.raises(Killed):
        run(name, env=env, journal=tmp_path)
    rest = Pruning()
    resumed = run(name, env=rest, journal=tmp_path)
    assert resumed.plan == whole.plan and resumed.reward == whole.reward
    assert resumed.evaluations == whole.evaluations and resumed.history == whole.history
    assert_same_state(resumed.agent.state_dict(), whole.agent.state_dict())
    assert len(env.evaluated) + len(rest.evaluated) == sum(
        not row["cached"] for row in whole.evaluations
    )


@pytest.mark.parametrize("name", ["ppo", "ddpg"])
def test_a_search_in_turn_repeats_itself_and_goes_on_after_a_kill(name, tmp_path):
    options = {"encoder": "encoder_decoder", "evaluations": 20}
    whole, again = (run(name, env=Pruning(in_turn=True), **options) for _ in range(2))
    assert {row["steps"] for row in whole.evaluations} == {6}
    assert whole.evaluations == again.evaluations and whole.history == again.history
    env = Pruning(in_turn=True)
    rate = env.rate

    def fragile(plans):
        if len(env.evaluated) == 12:
            raise Killed
        return rate(plans)

    env.evaluate = fragile
    with pytest.raises(Killed):
        run(name, env=env, journal=tmp_path, **options)
    resumed = run(name, env=Pruning(in_turn=True), journal=tmp_path, **options)
    assert resumed.plan == whole.plan and resumed.evaluations == whole.evaluations
    assert_same_state(resumed.agent.state_dict(), whole.agent.state_dict())


def test_a_finished_search_called_again_evaluates_nothing(tmp_path):
    whole = run("ppo", journal=tmp_path)
    env = Pruning()
    again = run("ppo", env=env, journal=tmp_path)
    assert not env.evaluated and again.evaluations == whole.evaluations
    assert again.plan == whole.plan


def test_a_journal_of_another_search_is_refused(tmp_path):
    run(journal=tmp_path)
    with pytest.raises(UserError, match="is of another search"):
        run(evaluations=31, journal=tmp_path)


def test_half_a_line_in_the_journal_is_dropped(tmp_path):
    whole = run()
    run(evaluations=30, journal=tmp_path)
    (tmp_path / "search.pt").unlink()
    lines = (tmp_path / "evaluations.jsonl").read_text()
    (tmp_path / "evaluations.jsonl").write_text(lines[:-20])
    env = Pruning()
    assert run(env=env, journal=tmp_path).evaluations == whole.evaluations
    assert len(env.evaluated) == 1


SCRIPT = """
import sys, time
from pathlib import Path
import tests.search.test_loop as t
env = t.Pruning()
rate = env.rate
env.evaluate = lambda plans: time.sleep(0.03) or rate(plans)
t.run("ppo", evaluations=24, env=env, journal=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_search_killed_by_sigkill_ends_as_if_it_had_not_been(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment)
    rows = tmp_path / "evaluations.jsonl"
    give_up = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") >= 10):
        assert child.poll() is None and time.monotonic() < give_up
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = rows.read_text().count("\n")
    env = Pruning()
    resumed, whole = run("ppo", 24, env=env, journal=tmp_path), run("ppo", 24)
    assert len(env.evaluated) == sum(not row["cached"] for row in whole.evaluations) - before
    assert resumed.plan == whole.plan and resumed.evaluations == whole.evaluations
    assert_same_state(resumed.agent.state_dict(), whole.agent.state_dict())


@pytest.mark.parametrize("name", ["random", "ppo", "reinforce", "ddpg"])
def test_an_environment_without_plans_is_searched_by_episodes(name, tmp_path):
    env = Target("continuous", size=(4, 6), static=False, steps=2)
    whole = run(name, 20, env=env)
    assert len(whole.evaluations) == 20 and len(whole.plan) == 2
    run(name, 20, env=env, journal=tmp_path)
    again = run(name, 20, env=env, journal=tmp_path)
    assert again.evaluations == whole.evaluations and again.reward == whole.reward


def test_neighbouring_episodes_can_start_from_the_same_seed():
    seeds = []

    class Watched(Target):
        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            return super().reset(seed=seed)

    env = Watched("continuous", static=False)
    agent = build_agent("random", env)
    seeds.clear()
    search(env, agent, evaluations=9, batch=8, seed=0, repeats=4)
    assert len(seeds) == 9
    assert len(set(seeds[:4])) == len(set(seeds[4:8])) == 1
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("name", ["evaluations", "batch", "repeats"])
def test_a_search_of_nothing_is_refused(name):
    env = Pruning()
    options = {"evaluations": 5, "batch": 5, "repeats": 1, name: 0}
    with pytest.raises(UserError, match=f"{name} 0"):
        search(env, build_agent("random", env), **options)


def test_controls_are_evaluated_first_charged_and_not_learned_from():
    env = Pruning()
    same = env.space.plan(np.full(env.space.size, 0.5))
    plans = {"uniform": same, "again": same}
    env.controls = plans
    found = run(env=env)
    assert [row["control"] for row in found.controls] == ["uniform", "again"]
    assert [row["cost"] for row in found.controls] == [1.0, 0.0]
    assert env.evaluated[0] == plans["uniform"]
    rows = [*found.controls, *found.evaluations]
    assert sum(row["cost"] for row in rows) == len(env.evaluated) <= 30
    without = run(evaluations=29)
    assert [row["plan"] for row in found.evaluations] == [
        row["plan"] for row in without.evaluations
    ]


def test_a_plan_that_equals_a_control_costs_nothing_and_counts_as_found():
    env = Pruning()
    same = env.space.plan(np.full(env.space.size, 0.5))
    env.controls = {"uniform": same}
    found = run("uniform", env=env)
    assert env.evaluated == [same] and found.plan == same
    assert found.evaluations[0]["cost"] == 0.0 and not found.evaluations[0]["cached"]
    assert [plan for plan, _ in found.leaders] == [same]


def test_a_search_with_controls_that_is_killed_goes_on_to_the_same_end(tmp_path):
    class Controlled(Pruning):
        def __init__(self, most=100):
            super().__init__()
            self.most = most
            self.controls = {"uniform": self.space.plan(np.full(self.space.size, 0.5))}

        def rate(self, plans):
            if len(self.evaluated) >= self.most:
                raise KeyboardInterrupt
            return super().rate(plans)

    whole = run("evolution", env=Controlled(), journal=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run("evolution", env=Controlled(12), journal=tmp_path / "killed")
    again = run("evolution", env=Controlled(), journal=tmp_path / "killed")
    assert (again.evaluations, again.controls) == (whole.evaluations, whole.controls)
