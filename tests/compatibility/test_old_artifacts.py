"""What earlier versions wrote is read today and means what it meant.

What a later version may no longer read loses its test, and the release notes say so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gnnrl.agents.transfer import adopt
from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from tests.compatibility import made
from tests.golden import assemble

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/expected.json"))
ADOPTED = ("ppo", "reinforce", "ddpg")
OTHER_STATES = ("6eb8f9c",)
"""Versions whose agents had other weights: a new agent adopts their policy, none goes on."""
TABLES = ("reinforce",)
"""Agents with a number for each decision of one graph: another one's is left behind, and a graph
that another processor rounds otherwise is another one."""


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest) -> Path:
    """The folder that an earlier version wrote."""
    return request.param


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    with assemble.settled():
        yield


def expected(old: Path) -> dict[str, Any]:
    return json.loads((old / "expected.json").read_text(encoding="utf-8"))


def near(values: Any) -> Any:
    return pytest.approx(values, rel=1e-4, abs=1e-5)


def test_a_plan_is_the_same_plan(old):
    plan = PruningPlan.load(old / "plan.json")
    assert plan.digest == expected(old)["plan"]


def test_a_graph_is_that_of_the_network_and_costs_what_it_cost(old):
    graph = ComputationalGraph.load(old / "graph.json")
    network = build_network(made.NETWORK, made.CLASSES, made.SHAPE).eval()
    assert graph == extract(network, torch.zeros(1, *made.SHAPE))
    assert graph.digest == expected(old)["graph"]
    plan = PruningPlan.load(old / "plan.json")
    costs = {"dense": cost(graph), "plan": cost(graph, plan)}
    found = {name: [price.flops, price.parameters] for name, price in costs.items()}
    assert found == expected(old)["costs"]


def test_a_checkpoint_is_cut_again_and_says_what_it_said(old):
    checkpoint = Checkpoint.load(old / "subnet.safetensors")
    assert [PruningPlan.from_json(plan).digest for plan in checkpoint.plans] == [
        expected(old)["plan"]
    ]
    with torch.no_grad():
        logits = checkpoint.restore()(made.image())
    for row, then in zip(logits.tolist(), expected(old)["logits"], strict=True):
        assert row == near(then)


@pytest.mark.parametrize("name", ADOPTED)
def test_a_new_agent_that_adopts_an_old_one_acts(name, old):
    env = made.environment(name)
    agent = made.agent(name, env)
    adopt(agent, old / f"{name}.pt")
    action = made.greedy(agent, env)
    assert env.space.used(env.space.plan(action)) <= 0.5
    if name not in TABLES:
        assert action == near(expected(old)["actions"][name])


@pytest.mark.parametrize("name", made.PLAYERS)
def test_an_agent_goes_on_from_its_state_or_refuses_it_in_one_sentence(name, old):
    env = made.environment(name)
    agent, state = made.agent(name, env), torch.load(old / f"{name}.pt", weights_only=True)
    if old.name in OTHER_STATES:
        with pytest.raises(UserError, match=r"another version .* remove the search's journal"):
            agent.load_state_dict(state)
        return
    agent.load_state_dict(state)
    action = made.greedy(agent, env)
    assert env.space.used(env.space.plan(action)) <= 0.5
    if name not in TABLES:
        assert action == near(expected(old)["actions"][name])


def test_a_killed_search_goes_on_from_its_journal_or_refuses_it_in_one_sentence(old, tmp_path):
    shutil.copytree(old / "journal", tmp_path / "journal")
    env = made.environment("ppo")
    agent = made.agent("ppo", env)
    if old.name in OTHER_STATES:
        with pytest.raises(UserError, match=r"another version .* remove the search's journal"):
            made.searched("ppo", env, agent, tmp_path / "journal")
        return
    found = made.searched("ppo", env, agent, tmp_path / "journal")
    then = expected(old)["search"]
    assert [row["plan"] for row in found.evaluations] == then["plans"]
    assert [row["reward"] for row in found.evaluations] == near(then["rewards"])


def test_there_is_something_of_an_earlier_version():
    assert VERSIONS
