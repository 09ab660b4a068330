"""An agent starts with what another one learned."""

from __future__ import annotations

import io

import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.search.env import PruningEnv
from gnnrl.search.spaces.channels import ChannelSpace


def env_of(name: str) -> PruningEnv:
    network = build_network(name).eval()
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    space = ChannelSpace(graph, l1(network, graph), 0.5)
    return PruningEnv(space, lambda plans: [Evaluation(0.0) for _ in plans])


def saved(agent, path) -> str:
    state = io.BytesIO()
    torch.save(agent.state_dict(), state)
    path.write_bytes(state.getvalue())
    return str(path)


def greedy(agent, env):
    observation, _ = env.reset(seed=0)
    return agent.act([observation], torch.Generator().manual_seed(0), greedy=True)[0].action


def test_a_policy_moves_to_a_network_of_another_size(tmp_path):
    small, large = env_of("basic_cnn"), env_of("resnet20")
    path = saved(build_agent("ppo", small, seed=1), tmp_path / "agent.pt")
    taught = build_agent("ppo", large, seed=2)
    before = greedy(taught, large)
    adopt(taught, path)
    after = greedy(taught, large)
    assert len(after) == large.space.size
    assert not (before == after).all()
    twin = build_agent("ppo", large, seed=3)
    adopt(twin, path)
    assert (greedy(twin, large) == after).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no such file"), (b"nonsense", "not a saved agent")],
)
def test_what_is_no_agent_is_refused(tmp_path, content, message):
    path = tmp_path / "agent.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        adopt(build_agent("ppo", env_of("basic_cnn")), path)


def test_a_policy_of_another_width_is_refused(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("ppo", env, hidden=32), tmp_path / "agent.pt")
    wanted = r"another kind of policy \(\d+ of \d+ tensors differ, the first is \S+: expected \(64"
    with pytest.raises(UserError, match=wanted):
        adopt(build_agent("ppo", env, hidden=64), path)


def test_an_agent_without_a_policy_is_refused(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("ppo", env), tmp_path / "agent.pt")
    with pytest.raises(UserError, match="has no policy"):
        adopt(build_agent("uniform", env), path)
