"""The agent that ships with the library."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gnnrl.agents.pretrained import SHIPPED, encoder, read_pretrained
from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.errors import UserError
from gnnrl.search.observations.channels import FEATURES
from tests.agents.test_transfer import env_of, greedy

MADE_FOR = {"space": "channels", "features": FEATURES, "action_kind": "continuous"}


def shipped(env, seed=0):
    agent = build_agent("ppo", env, seed=seed, **encoder("ppo", **MADE_FOR))
    adopt(agent, SHIPPED)
    return agent


def test_its_weights_are_small_and_made_for_the_features_of_today():
    assert SHIPPED.stat().st_size <= 2 * 2**20
    weights, about = read_pretrained()
    assert about["features"] == FEATURES and all(w.isfinite().all() for w in weights.values())


def test_it_decides_the_same_whatever_the_seed_on_networks_of_any_size():
    for name in ("basic_cnn", "resnet20"):
        env = env_of(name)
        one, other = (greedy(shipped(env, seed), env) for seed in (0, 1))
        assert len(one) == env.space.size and (one == other).all() and one.std() > 0


def test_decisions_follow_the_nodes_when_these_are_permuted():
    env = env_of("resnet20")
    agent, (seen, _) = shipped(env), env.reset(seed=0)
    order = torch.randperm(len(seen.x), generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    mixed = copy.copy(seen)
    mixed.x = seen.x[order]
    mixed.edge_index, mixed.channel_index = place[seen.edge_index], place[seen.channel_index]
    mixed.decision_index = place[seen.decision_index].flip(0)
    one, other = (
        agent.act([given], torch.Generator(), greedy=True)[0].action for given in (seen, mixed)
    )
    np.testing.assert_allclose(other[::-1], one, atol=1e-6)


@pytest.mark.parametrize(
    ("agent", "changed", "message"),
    [
        ("ppo", {"space": "weights"}, "decides in the space channels, got weights"),
        ("ppo", {"action_kind": "binary"}, "has actions that are continuous, got binary"),
        ("ppo", {"features": "0"}, "reads the features of version .*, got 0"),
        ("evolution", {}, "the agent evolution has no policy"),
    ],
)
def test_what_it_was_not_made_for_is_refused(agent, changed, message):
    with pytest.raises(UserError, match=f"^agent_from pretrained: .*{message}"):
        encoder(agent, **{**MADE_FOR, **changed})
