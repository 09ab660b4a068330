"""One search for several budgets, and plans for the budgets between them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.search.budgets import BudgetsEnv
from gnnrl.search.front import Front
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace
from tests.rl.toys import Widths

BUDGETS = (0.5, 0.3, 0.7)
PPO = {"hidden": 8, "layers": 1, "n_epochs": 2}


def network_of(seed=0):
    torch.manual_seed(seed)
    network = build_network("basic_cnn_eighth").eval()
    return network, extract(network, torch.zeros(1, 3, 32, 32))


NETWORK, GRAPH = network_of()


class Pruning(BudgetsEnv):
    """Pruning that counts what it evaluates; the first of two groups alone matters.

    alive: evaluations before it is killed.
    """

    def __init__(self, alive=10_000):
        self.alive = alive
        super().__init__(ChannelSpace(GRAPH, l1(NETWORK, GRAPH), BUDGETS[0]), BUDGETS, self.rate)

    def rate(self, plans):
        found = []
        for plan in plans:
            self.alive -= 1
            if self.alive < 0:
                raise KeyboardInterrupt
            first = len(plan.kept[next(iter(plan.kept))])
            used = cost(GRAPH, plan)
            found.append(Evaluation(-1.0 / first, 0.5, used.flops, used.parameters))
        return found


def run(evaluations=40, env=None, agent="ppo", **options):
    env = env or Pruning()
    chosen = build_agent(agent, env, seed=0, **(PPO if agent == "ppo" else {}))
    return search(env, chosen, evaluations=evaluations, batch=8, seed=0, **options)


def test_a_batch_holds_several_budgets_and_every_plan_meets_its_own():
    found = run()
    batch = [row["budget"] for row in found.evaluations[3:11]]
    assert set(batch) == set(BUDGETS)
    dense = cost(GRAPH).flops
    for row in found.evaluations:
        assert row["flops"] <= row["budget"] * dense
    counts = [sum(row["budget"] == b for row in found.evaluations) for b in BUDGETS]
    assert max(counts) - min(counts) <= 1
    spent = sum(not row["cached"] for row in found.evaluations)
    assert 40 - len(BUDGETS) <= spent <= 40, "those put aside for the end may be known by then"


def test_the_budget_is_an_input_of_the_policy():
    env = Pruning()
    seen = [env.reset(seed=start)[0].x for start in range(3)]
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_the_plan_is_the_best_of_the_budget_asked_for_and_the_front_has_one_for_each():
    found = run()
    for budget in BUDGETS:
        rows = [row for row in found.evaluations if row["budget"] == budget]
        best = max(rows, key=lambda row: row["reward"])
        assert found.front.plan_for(GRAPH, budget).digest == best["plan"]
    assert found.plan == found.front.plan_for(GRAPH, BUDGETS[0])
    assert found.reward == max(r["reward"] for r in found.evaluations if r["budget"] == 0.5)


def test_the_front_gives_a_plan_between_two_budgets_that_uses_its_budget_up(tmp_path):
    front = run().front
    front.save(tmp_path / "front.json")
    read = Front.load(tmp_path)
    assert read == front
    for budget in (0.35, 0.42, 0.6):
        kept = cost(GRAPH, read.plan_for(GRAPH, budget)).flops / cost(GRAPH).flops
        assert 0.95 * budget < kept <= budget


@pytest.mark.parametrize("budget", [0.29, 0.71])
def test_a_budget_outside_of_those_searched_is_refused(budget):
    with pytest.raises(UserError, match=r"budgets of flops from 0\.3 to 0\.7, got 0\.\d"):
        run(6).front.plan_for(GRAPH, budget)


def test_a_front_is_refused_for_another_graph_and_where_there_is_none(tmp_path):
    other = extract(build_network("basic_cnn_quarter").eval(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match="of another graph"):
        run(6).front.plan_for(other, 0.5)
    with pytest.raises(UserError, match=r"there is no front .*set search\.budgets"):
        Front.load(tmp_path)


def test_several_budgets_are_refused_by_a_space_that_has_one():
    with pytest.raises(UserError, match="Widths has one budget only; take the space channels"):
        BudgetsEnv(Widths(), BUDGETS, lambda plans: [])


def test_the_same_seed_gives_the_same_search():
    first, again = run(), run()
    assert first.evaluations == again.evaluations and first.front == again.front


@pytest.mark.parametrize("alive", [2, 13, 30])
def test_a_killed_search_ends_as_if_it_had_not_been_killed(alive, tmp_path):
    whole = run(journal=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(env=Pruning(alive), journal=tmp_path / "killed")
    resumed = run(journal=tmp_path / "killed")
    assert resumed.evaluations == whole.evaluations
    assert resumed.front == whole.front and resumed.plan == whole.plan
    weights = [found.agent.policy.state_dict() for found in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_agent_learns_from_gains_over_the_first_plan_of_each_budget():
    lessons = []
    env = Pruning()
    agent = build_agent("ppo", env, seed=0, **PPO)
    learn = agent.learn
    agent.learn = lambda rollout: lessons.extend(rollout.episodes) or learn(rollout)
    found = search(env, agent, evaluations=20, batch=8, seed=0)
    firsts = {row["budget"]: row["reward"] for row in found.evaluations[:3]}
    for episode, row in zip(lessons, found.evaluations[3:], strict=False):
        first = firsts[row["budget"]]
        assert episode.reward == pytest.approx((row["reward"] - first) / abs(first))


def test_what_is_learned_of_a_decision_counts_for_all_budgets():
    found = run()
    assert list(found.agent.credit.tried) == ["pool 0"]
    actions, _, _ = found.agent.credit.tried["pool 0"]
    assert len(actions) == len(found.evaluations) - 6  # all but the greedy decisions


def test_decisions_follow_the_nodes_when_these_are_permuted():
    env = Pruning()
    agent = run().agent
    for start in range(3):
        seen, _ = env.reset(seed=start)
        order = torch.randperm(len(seen.x), generator=torch.Generator().manual_seed(start))
        place = order.argsort()
        mixed = copy.copy(seen)
        mixed.x = seen.x[order]
        mixed.edge_index, mixed.channel_index = place[seen.edge_index], place[seen.channel_index]
        mixed.decision_index = place[seen.decision_index].flip(0)
        decided = [
            agent.act([one], torch.Generator(), greedy=True)[0].action for one in (seen, mixed)
        ]
        np.testing.assert_allclose(decided[1][::-1], decided[0], atol=1e-6)


def test_controls_of_every_budget_are_evaluated_and_named():
    env = Pruning()
    env.controls = env.comparisons()
    found = run(env=env)
    assert [row["control"] for row in found.controls] == [
        "uniform", "uniform at 0.3", "uniform at 0.7",
    ]  # fmt: skip
