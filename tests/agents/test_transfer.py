"""An agent starts with what another one learned."""

from __future__ import annotations

import io
from functools import cache

import pytest
import torch
from torch import nn

from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt, save_encoder
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.pruning.importance import l1
from gnnrl.rl.policy import embeddings
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense

WIDTH = {"hidden": 16, "layers": 1}


@cache
def env_of(name: str) -> PruningEnv:
    network, graph = dense(name)
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


@pytest.mark.parametrize("part", ["policy", "encoder"])
@pytest.mark.parametrize(
    ("made", "wanted", "said"),
    [
        ({"encoder": "plain"}, {},
         "was saved with search.encoder plain, expected search.encoder multi_stage; "
         "set search.encoder to plain, or name the agent.pt of another search"),
        ({"hidden": 32, "layers": 2}, {"layers": 1},
         "was saved with search.gnn.hidden 32 and search.gnn.layers 2, expected search.gnn.hidden "
         "64 and search.gnn.layers 1; set search.gnn.hidden to 32 and search.gnn.layers to 2, or "
         "name the agent.pt of another search"),
    ],
)  # fmt: skip
def test_an_agent_of_another_encoder_is_refused_by_the_settings_that_differ(
    made, wanted, said, part, tmp_path
):
    env = env_of("basic_cnn")
    path = saved(build_agent("ppo", env, **made), tmp_path / "agent.pt")
    with pytest.raises(UserError) as refused:
        adopt(build_agent("ppo", env, **wanted), path, part)
    assert str(refused.value) == f"agent_from {path}: the agent {said}"


def test_an_agent_without_a_decoder_is_refused_where_one_is_wanted(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("ppo", env, **WIDTH), tmp_path / "agent.pt")
    wanted = r"with search\.encoder multi_stage, expected search\.encoder encoder_decoder; set"
    with pytest.raises(UserError, match=wanted):
        adopt(build_agent("ppo", env, encoder="encoder_decoder", **WIDTH), path)


class Own(nn.Module):
    """An encoder of the user's own."""

    def __init__(self, spec, settings):
        super().__init__()
        self.stem = nn.Linear(spec.node_features, settings.hidden)
        self.join = nn.Linear(settings.hidden, settings.hidden)

    def forward(self, data):
        return self.join(self.stem(data.x))


def test_nothing_is_said_of_the_settings_of_an_encoder_of_ones_own(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("ppo", env, encoder=f"{__name__}:Own", **WIDTH), tmp_path / "agent.pt")
    with pytest.raises(UserError, match=r"another kind of policy .* saved with$"):
        adopt(build_agent("ppo", env, **WIDTH), path)


def test_another_kind_of_agent_is_refused_with_the_part_of_it_that_can_be_taken(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("ddpg", env, **WIDTH), tmp_path / "agent.pt")
    wanted = r"another kind of policy \(\d+ of \d+ tensors differ\); .*agent_part to encoder$"
    with pytest.raises(UserError, match=wanted):
        adopt(build_agent("ppo", env, **WIDTH), path)


def test_an_agent_without_a_policy_is_refused(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("ppo", env), tmp_path / "agent.pt")
    with pytest.raises(UserError, match="has no policy"):
        adopt(build_agent("uniform", env), path)


def encoders(agent):
    """The weights that read graphs, of every encoder of an agent, as one list of tensors."""
    return [w.clone() for embed in embeddings(agent.policy) for w in embed.of_graphs().values()]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_ddpg_moves_to_a_network_of_another_size_with_its_target_networks(tmp_path):
    small, large = env_of("basic_cnn"), env_of("resnet20")
    path = saved(build_agent("ddpg", small, seed=1, **WIDTH), tmp_path / "agent.pt")
    taught = build_agent("ddpg", large, seed=2, **WIDTH)
    adopt(taught, path)
    twin = build_agent("ddpg", large, seed=3, **WIDTH)
    adopt(twin, path)
    assert (greedy(twin, large) == greedy(taught, large)).all()
    assert same(taught.targets.state_dict().values(), taught.nets.state_dict().values())


@pytest.mark.parametrize(
    "source, name, encoder",
    [
        ("ppo", "ddpg", "multi_stage"),
        ("ddpg", "ppo", "encoder_decoder"),
        ("the encoder's own file", "ddpg", "encoder_decoder"),
        ("the encoder's own file", "reinforce", "multi_stage"),
    ],
)
def test_an_encoder_moves_alone_into_any_agent_whose_heads_start_anew(
    source, name, encoder, tmp_path
):
    small, large = env_of("basic_cnn"), env_of("resnet20")
    teacher = build_agent("ddpg" if source == "ddpg" else "ppo", small, seed=1, **WIDTH)
    path = saved(teacher, tmp_path / "agent.pt")
    if source not in ("ppo", "ddpg"):
        save_encoder(teacher.policy, path)
    agent = build_agent(name, large, seed=2, encoder=encoder, **WIDTH)
    fresh = build_agent(name, large, seed=2, encoder=encoder, **WIDTH)
    adopt(agent, path, "encoder")
    taught = [w for _, w in embeddings(teacher.policy)[0].of_graphs().items()]
    for embed in embeddings(agent.policy):
        assert same(embed.of_graphs().values(), taught)
    moved = {k for k, v in agent.policy.state_dict().items() if ".encoder." in k}
    for key, value in fresh.policy.state_dict().items():
        if key not in moved or ".decoder." in key:
            assert torch.equal(value, agent.policy.state_dict()[key]), key


@pytest.mark.parametrize("name", ["ppo", "ddpg"])
def test_a_frozen_encoder_stays_while_decoder_and_heads_learn(name):
    env = env_of("basic_cnn").clone()
    shape = {**WIDTH, "encoder": "encoder_decoder", "freeze_encoder": True}
    few = {"max_updates": 2} if name == "ddpg" else {}
    agent = build_agent(name, env, seed=0, **shape, **few)
    before = encoders(agent)
    others = {k: v.clone() for k, v in agent.policy.state_dict().items()}
    env.evaluate = lambda plans: [Evaluation(float(int(plan.digest[0], 16))) for plan in plans]
    search(env, agent, evaluations=10, batch=4, seed=0)
    assert same(encoders(agent), before)
    after = agent.policy.state_dict()
    learned = [k for k, v in others.items() if not torch.equal(v, after[k])]
    assert any(".decoder." in k for k in learned) and any(".encoder." not in k for k in learned)


def test_an_agent_without_an_encoder_has_none_to_take(tmp_path):
    env = env_of("basic_cnn")
    path = saved(build_agent("evolution", env), tmp_path / "evolution.pt")
    with pytest.raises(UserError, match="not a saved agent"):
        adopt(build_agent("ppo", env, **WIDTH), path, "encoder")
