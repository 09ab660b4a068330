"""Workers that act and learn at their own pace: one is the synchronous algorithm, exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import FAILED, Evaluation
from gnnrl.rl.episodes import roll_out
from gnnrl.rl.rollout import Rollout
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.parallel.workers import Shared
from tests.rl.toys import Target, Widths
from tests.search.parallel.pools import Here

TINY = {"hidden": 8, "layers": 1}


class Pruning(PruningEnv):
    """Pruning of toy widths which counts what it evaluates."""

    def __init__(self, wrong=None):
        self.evaluated, self.wrong = [], wrong
        super().__init__(Widths(), self.rate)

    def rate(self, plans):
        if self.wrong is not None:
            raise ValueError(self.wrong)
        self.evaluated += [plan.digest for plan in plans]
        return [Evaluation(self.space.reward(plan), accuracy=0.5) for plan in plans]


def run(size=None, env=None, order=0, evaluations=30, batch=4, **options):
    """Search with so many workers, or in this process."""
    env = env or Pruning()
    agent = build_agent("a3c", env, seed=0, **TINY, **options.pop("parameters", {}))
    pool = None if size is None else Here(Shared(env, agent), size, order)
    found = search(
        env, agent, evaluations=evaluations, batch=batch, seed=0, workers=pool, **options
    )
    return found, pool


def same(one, other):
    pairs = zip(one.agent.policy.parameters(), other.agent.policy.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "env, staleness", [(Pruning, 8), (lambda: Target("binary", static=False, steps=2), 0)]
)
def test_one_worker_is_the_synchronous_algorithm_exactly(env, staleness):
    parameters = {"max_staleness": staleness}
    synchronous, _ = run(env=env(), parameters=parameters)
    alone, _ = run(1, env=env(), parameters=parameters)
    assert same(synchronous, alone) and synchronous.evaluations == alone.evaluations
    assert all(row["staleness"] == 0 and row["gradients"] == 1 for row in alone.history)


def test_the_synchronous_algorithm_is_advantage_actor_critic():
    """Against the textbook: backward, clip, a step of Adam, for one-step episodes."""
    env = Target("binary")
    agent = build_agent("a3c", env, seed=0, **TINY)
    own, random = copy.deepcopy(agent), torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(own.policy.parameters(), lr=own.settings.learning_rate)
    seen: list[float] = []
    for _ in range(3):
        rollout = Rollout(tuple(roll_out(env, agent, [1] * 4, random)))
        agent.learn(rollout)
        returns = [episode.reward for episode in rollout.episodes]
        seen += returns
        mean, std = (
            torch.tensor(seen).double().mean(),
            torch.tensor(seen).double().std(correction=0),
        )
        normed = ((torch.tensor(returns).double() - mean) / std).float()
        outlook = own.policy([step.observation for step in rollout.transitions])
        raw = torch.cat([step.decision.raw for step in rollout.transitions])
        how = own.distribution
        advantages = (normed - outlook.values.detach())[how.owner(outlook)]
        loss = -(advantages * how.log_prob(outlook, raw)).mean()
        loss = loss + 0.5 * (outlook.values - normed).square().mean()
        loss = loss - 0.001 * how.entropy(outlook).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own.policy.parameters(), 0.5)
        optimizer.step()
        for one, other in zip(agent.policy.parameters(), own.policy.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("staleness, order", [(0, 0), (1, 1), (3, 2)])
def test_staleness_is_bounded_and_every_evaluation_is_spent_once(staleness, order):
    found, pool = run(5, order=order, batch=2, parameters={"max_staleness": staleness})
    rows = found.evaluations
    assert len(rows) == 30 and [row["episode"] for row in rows] == list(range(30))
    assert max(row["staleness"] for row in found.history) <= staleness
    assert sum(row["gradients"] for row in found.history) == 14  # 28 episodes, greedy before, after
    fresh = [row["plan"] for row in rows if not row["cached"]]
    assert sorted(fresh) == sorted(set(pool.shared.env.evaluated)) == sorted(set(fresh))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 8])
def test_many_workers_learn_as_one_does(size):
    env = Target("binary")
    agent = build_agent("a3c", env, seed=0, hidden=32, layers=2)
    workers = Here(Shared(env, agent), size)
    search(env, agent, evaluations=400, batch=4, workers=workers)
    (episode,) = roll_out(env, agent, [10**6], torch.Generator(), greedy=True)
    assert episode.reward >= 0.75


class Killed(Exception):
    pass


SLOWER = [pytest.param(size, k, marks=pytest.mark.slow) for size in (1, 4) for k in (1, 12, 36)]


@pytest.mark.parametrize("size, after", [(1, 24), (4, 7), *SLOWER])
def test_a_search_cut_short_goes_on_and_spends_what_is_left(size, after, tmp_path):
    whole, pool = run(size)
    total = len(pool.shared.env.evaluated)

    class Fragile(Here):
        def completed(self):
            if self.calls == after:
                raise Killed
            return super().completed()

    env = Pruning()
    agent = build_agent("a3c", env, seed=0, **TINY)
    pool = Fragile(Shared(env, agent), size)
    arguments = {"evaluations": 30, "batch": 4, "seed": 0, "journal": tmp_path}
    with pytest.raises(Killed):
        search(env, agent, workers=pool, **arguments)
    env = Pruning()
    agent = build_agent("a3c", env, seed=0, **TINY)
    rest = Here(Shared(env, agent), size)
    found = search(env, agent, workers=rest, **arguments)
    assert sum(row["cost"] for row in found.evaluations) in (29, 30)  # the last one may be known
    fresh = [row["plan"] for row in found.evaluations if not row["cached"]]
    assert len(fresh) == len(set(fresh))
    if size == 1:
        assert same(found, whole) and found.evaluations == whole.evaluations
        assert len(pool.shared.env.evaluated) + len(rest.shared.env.evaluated) == total


def test_a_plan_that_gives_no_result_has_a_reward_and_a_reason():
    env = Pruning()
    agent = build_agent("random", env)
    env.evaluate = Pruning(wrong="it is broken").rate
    pool = Here(Shared(env))
    rows = search(env, agent, evaluations=4, batch=2, workers=pool).evaluations
    assert {row["status"] for row in rows} == {"ValueError: it is broken"}
    assert {row["reward"] for row in rows} == {FAILED}


def test_an_environment_that_cannot_be_stepped_is_named():
    class Broken(Target):
        def step(self, action):
            raise ValueError("no more")

    env = Broken("binary")
    with pytest.raises(UserError, match=r"target: a step gave no result: ValueError: no more"):
        search(env, build_agent("random", env), evaluations=4, workers=Here(Shared(env)))
    agent = build_agent("a3c", env, **TINY)
    with pytest.raises(UserError, match=r"target: a .* no result: ValueError: no more"):
        search(env, agent, evaluations=4, workers=Here(Shared(env, agent)))


@pytest.mark.parametrize(
    "name, env",
    [
        ("reinforce", Pruning),
        ("annealing", Pruning),
        ("random", lambda: Target("continuous", static=False)),
        pytest.param("ppo", Pruning, marks=pytest.mark.slow),
        pytest.param("evolution", Pruning, marks=pytest.mark.slow),
    ],
)
def test_workers_change_nothing_for_agents_that_wait_for_a_batch(name, env):
    def found(workers):
        task = env()
        parameters = TINY if name in ("ppo", "reinforce") else {}
        agent = build_agent(name, task, seed=0, **parameters)
        pool = Here(Shared(task), workers) if workers else None
        return search(task, agent, evaluations=20, batch=6, workers=pool)

    here = found(0)
    for workers in (1, 3):
        there = found(workers)
        assert here.evaluations == there.evaluations and here.history == there.history
        assert here.reward == there.reward
