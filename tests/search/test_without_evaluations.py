"""With no evaluations at all, a search returns the plan that its agent would try first."""

from __future__ import annotations

import math

import pytest

from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.search.build import SearchTask, run
from gnnrl.search.results import summary
from gnnrl.search.settings import SearchSettings
from tests.dense import dense


class Untouched:
    """Images that must not be looked at."""

    def __getattr__(self, name):
        raise AssertionError(f"images were used: {name}")


def task_of(**settings):
    network, graph = dense("resnet20")
    checkpoint = Checkpoint.of(network, "resnet20", 10, (3, 32, 32))
    chosen = SearchSettings(evaluations=0, **settings)
    return SearchTask(chosen, checkpoint, graph, Untouched(), Untouched())


def test_the_pretrained_agent_plans_without_an_image(tmp_path):
    task = task_of(agent_from="pretrained")
    found, spent = run(task, tmp_path)
    again, _ = run(task, tmp_path)
    dense, kept = cost(task.graph), cost(task.graph, found.plan)
    assert found.plan == again.plan and spent == 0 and not found.evaluations
    assert 0.49 * dense.flops < kept.flops <= 0.5 * dense.flops
    assert math.isnan(found.reward)
    assert summary(task.graph, found, spent) == {
        "flops_kept": kept.flops / dense.flops,
        "parameters_kept": kept.parameters / dense.parameters,
        "plans": 0,
        "evaluations": 0,
    }


def test_it_plans_for_every_budget(tmp_path):
    task = task_of(agent_from="pretrained", budgets=(0.3, 0.7))
    found, _ = run(task, tmp_path)
    dense = cost(task.graph).flops
    for budget in (0.3, 0.4, 0.5, 0.7):
        assert cost(task.graph, found.front.plan_for(task.graph, budget)).flops <= budget * dense


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent": "evolution"}, "the agent evolution has no policy"),
        (
            {"space": "weights", "budget": {"parameters": 0.5}},
            "decides in the space channels, got weights",
        ),
    ],
)
def test_the_pretrained_agent_is_refused_for_what_it_was_not_made_for(settings, message, tmp_path):
    with pytest.raises(UserError, match=f"^agent_from pretrained: .*{message}"):
        run(task_of(agent_from="pretrained", **settings), tmp_path)
