"""The agent that looks at every decision alone."""

from __future__ import annotations

import numpy as np
import pytest

from gnnrl.agents.registry import build_agent
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided, Evaluation, Evaluator
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.importance import l1
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense
from tests.rl.toys import Target


class Priced(Evaluator):
    """Evaluations of a network whose groups have a price, all but the even ones a low one."""

    cost = 0.5

    def __init__(self, space: ChannelSpace) -> None:
        self.space, self.plans = space, []
        self.price = np.where(np.arange(space.size) % 2, 1.0, 0.05)

    def __call__(self, plans):
        plans = [Decided.of(plan).plan for plan in plans]
        self.plans += plans
        return [Evaluation(-float(self.loss(plan)), 0.5, cost=0.5) for plan in plans]

    def loss(self, plan):
        keep = kept_units(self.space.graph, plan.kept)
        gone = [1 - keep[g.start : g.start + g.size].mean() for g in self.space.graph.groups]
        return self.price @ np.square(gone) / 4 + 0.3


@pytest.fixture(scope="module")
def space() -> ChannelSpace:
    network, graph = dense("resnet20")
    return ChannelSpace(graph, l1(network, graph), 0.5)


def found(name, space, evaluations, **options):
    rate = Priced(space)
    env = PruningEnv(space, rate)
    return search(env, build_agent(name, env), evaluations=evaluations, batch=4, **options), rate


def test_it_is_charged_for_what_it_looks_at(space):
    result, rate = found("sensitivity", space, 15)
    tried = sum(not row["cached"] for row in result.evaluations)
    assert len(rate.plans) == space.size + 1 + tried
    assert result.history[-1]["spent"] == 0.5 * len(rate.plans) == 14  # the last one is known


def test_its_first_plan_is_better_than_what_random_finds_and_it_goes_on_from_there(space):
    result, rate = found("sensitivity", space, 40)
    first = result.evaluations[0]["reward"]
    assert first > found("random", space, 40)[0].reward > -rate.loss(space.uniform()) - 0.1
    assert result.reward > first


def test_a_search_that_goes_on_from_its_journal_does_not_look_again(space, tmp_path):
    whole, _ = found("sensitivity", space, 15, journal=tmp_path)
    again, rate = found("sensitivity", space, 15, journal=tmp_path)
    assert not rate.plans and again.evaluations == whole.evaluations


def test_an_environment_without_probes_is_refused():
    env = Target("continuous")
    with pytest.raises(UserError, match="evaluates decisions one by one, which 'target' does not"):
        search(env, build_agent("sensitivity", env), evaluations=5)


def test_other_actions_are_refused():
    message = r"sensitivity decides how much to keep, got binary actions"
    with pytest.raises(UserError, match=message):
        build_agent("sensitivity", Target("binary"))
