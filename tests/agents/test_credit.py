"""Credit: exact on separable rewards, silent where it knows nothing, unbiased everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.agents.credit import Credit
from gnnrl.agents.ppo import clipped_surrogate
from gnnrl.rl.rollout import Decision, Episode, Rollout, Transition
from tests.rl.toys import ring

SEEN = ring(torch.Generator().manual_seed(0), 5)
FLAT = torch.tensor([[0.5, 1 / 3]]).repeat(5, 1)  # mean and mean square of a uniform action


def rollout(actions, rewards, seen=SEEN):
    steps = [
        Transition(seen, Decision(a.numpy()), float(r))
        for a, r in zip(actions, rewards, strict=True)
    ]
    return Rollout(tuple(Episode((step,)) for step in steps))


def tried(number, reward, seed=0):
    actions = torch.rand(number, 5, generator=torch.Generator().manual_seed(seed)).double()
    return actions, reward(actions)


def separable(actions):
    weights = torch.tensor([3.0, -2.0, 1.0, 0.0, 0.5]).double()
    return 7 + (weights * actions - weights.abs() * actions.square()).sum(1)


def test_each_decision_is_credited_with_its_own_part_of_a_separable_reward():
    actions, rewards = tried(60, separable)
    credited = torch.stack(Credit(1.0).of(rollout(actions, rewards), lambda graphs: [FLAT]))
    weights = torch.tensor([3.0, -2.0, 1.0, 0.0, 0.5]).double()
    own = weights * (actions - 0.5) - weights.abs() * (actions.square() - 1 / 3)
    torch.testing.assert_close(credited, own, rtol=0, atol=0.02)


def test_what_the_model_leaves_unexplained_is_shared():
    """On noise all decisions get the same: the reward less its mean."""
    noise = torch.randn(200, generator=torch.Generator().manual_seed(1)).double()
    actions, rewards = tried(200, lambda actions: noise)
    credited = torch.stack(Credit(1.0).of(rollout(actions, rewards), lambda graphs: [FLAT]))
    shared = (noise - noise.mean()).unsqueeze(1).expand(-1, 5)
    assert (credited - shared).std() < 0.15 * shared.std()


def test_credit_has_the_gradient_of_the_shared_reward_and_far_less_noise():
    """The policy gradient of many batches: same mean, smaller deviation."""

    def gradients(credited):
        model = Credit(1.0)
        found = []
        for seed in range(300):
            actions, rewards = tried(8, separable, seed)
            own = torch.stack(model.of(rollout(actions, rewards), lambda graphs: [FLAT]))
            shared = (rewards - 6.5).unsqueeze(1)
            found.append(((own if credited else shared) * (actions - 0.5)).mean(0))
        return torch.stack(found[20:])

    plain, credited = gradients(False), gradients(True)
    standard_error = plain.std(0) / 280**0.5
    assert ((plain.mean(0) - credited.mean(0)).abs() < 4 * standard_error).all()
    assert (credited.std(0) < plain.std(0)).all()
    assert (credited.std(0) / plain.std(0)).mean() < 0.4


def test_last_digits_of_measured_features_do_not_part_what_is_known_of_a_graph():
    credit, (actions, rewards) = Credit(1.0), tried(4, separable)
    credit.of(rollout(actions, rewards), lambda graphs: [FLAT])
    elsewhere = SEEN.clone()
    elsewhere.x = torch.nextafter(SEEN.x, torch.tensor(torch.inf))
    credit.of(rollout(actions, rewards, elsewhere), lambda graphs: [FLAT])
    assert [len(known) for _, known, _ in credit.tried.values()] == [8]


def test_nothing_is_said_of_graphs_seen_once_or_of_longer_episodes():
    actions, rewards = tried(3, separable)
    assert Credit(1.0).of(rollout(actions, rewards), lambda graphs: [FLAT]) == [None] * 3
    step = Transition(SEEN, Decision(np.zeros(5)), 1.0)
    longer = Rollout(tuple(Episode((step, step)) for _ in range(8)))
    assert Credit(1.0).of(longer, lambda graphs: []) == [None] * 8


@pytest.mark.parametrize(
    "ratio, advantage, expected",
    [(1.5, 1.0, 1.2), (1.5, -1.0, -1.5), (0.5, 1.0, 0.5), (0.5, -1.0, -0.8), (1.1, 2.0, 2.2)],
)
def test_the_surrogate_is_clipped_as_in_equation_7(ratio, advantage, expected):
    found = clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), 0.2)
    assert found.item() == pytest.approx(expected)
