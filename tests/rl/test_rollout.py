"""Advantages against a double loop, and what a decision is credited with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.agents.reinforce import discounted_returns, leave_one_out
from gnnrl.rl.rollout import (
    Decision,
    Episode,
    Rollout,
    Transition,
    decision_advantages,
    episode_advantages,
    generalized_advantages,
    require_single_steps,
)
from tests.rl.toys import ring

SEEN = ring(torch.Generator().manual_seed(0), 3)


def transition(reward, value=0.0, credit=None):
    decision = Decision(np.zeros(3), torch.zeros(3), torch.zeros(3), value)
    return Transition(SEEN, decision, reward, credit)


def double_loop(rewards, values, dones, gamma, gae_lambda):
    """Eq. 16 of Schulman et al. 2016 as it is written: a sum over all later steps."""
    advantages = []
    for t in range(len(rewards)):
        total, weight = 0.0, 1.0
        for later in range(t, len(rewards)):
            alive = 1 - dones[later]
            delta = rewards[later] + gamma * values[later + 1] * alive - values[later]
            total += weight * delta
            weight *= gamma * gae_lambda * alive
        advantages.append(total)
    return advantages


@pytest.mark.parametrize("gamma, gae_lambda", [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0), (0.5, 0.7)])
def test_generalized_advantages_equal_a_double_loop(gamma, gae_lambda):
    generator = torch.Generator().manual_seed(1)
    rewards, values = (torch.randn(n, generator=generator).double() for n in (20, 21))
    dones = (torch.rand(20, generator=generator) < 0.2).double()
    expected = double_loop(rewards.tolist(), values.tolist(), dones.tolist(), gamma, gae_lambda)
    found = generalized_advantages(rewards, values, dones, gamma, gae_lambda)
    assert found.tolist() == pytest.approx(expected)


def test_with_lambda_one_the_advantage_is_the_return_less_the_value():
    episode = Episode((transition(1.0, 0.3), transition(2.0, -0.4), transition(4.0, 0.9)))
    found = episode_advantages(episode, bootstrap=99.0, gamma=0.5, gae_lambda=1.0)
    assert found.tolist() == pytest.approx([1 + 1 + 1 - 0.3, 2 + 2 + 0.4, 4 - 0.9])


def test_a_truncated_episode_goes_on_with_the_value_of_its_last_observation():
    steps = (transition(1.0, 0.0),)
    ended = episode_advantages(Episode(steps), 10.0, 0.5, 1.0)
    cut = episode_advantages(Episode(steps, final=SEEN), 10.0, 0.5, 1.0)
    assert (ended.item(), cut.item()) == (1.0, 6.0)


def test_without_credit_all_decisions_share_the_advantage():
    own = decision_advantages(transition(1.0), torch.tensor(0.7))
    assert own.tolist() == pytest.approx([0.7] * 3)


def test_credit_replaces_the_reward_of_the_step_and_leaves_the_future_shared():
    step = transition(2.0, credit=np.array([1.0, 2.0, 6.0]))
    own = decision_advantages(step, torch.tensor(0.5, dtype=torch.float64))
    assert own.tolist() == pytest.approx([-0.5, 0.5, 4.5])


def test_credit_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"credit of shape \(2,\), expected \(3,\)"):
        decision_advantages(transition(1.0, credit=np.zeros(2)), torch.tensor(0.0))


def test_returns_are_discounted_from_each_step_on():
    episode = Episode((transition(1.0), transition(2.0), transition(4.0)))
    assert discounted_returns(episode, 0.5) == [3.0, 4.0, 4.0]


def test_leave_one_out_compares_with_the_others_of_the_same_start():
    episodes = [Episode((transition(r),), seed=s) for r, s in [(1, 0), (3, 0), (10, 1), (30, 1)]]
    assert leave_one_out(episodes, 1.0).tolist() == [-2, 2, -20, 20]


def test_leave_one_out_compares_with_the_batch_where_every_start_is_another():
    episodes = [Episode((transition(r),), seed=s) for s, r in enumerate([0.0, 3.0, 6.0])]
    assert leave_one_out(episodes, 1.0).tolist() == [-4.5, 0.0, 4.5]


def test_agents_of_one_action_refuse_longer_episodes():
    with pytest.raises(ValueError, match="annealing searches one action per episode"):
        require_single_steps(Rollout((Episode((transition(1), transition(2))),)), "annealing")


def test_nothing_is_no_episode():
    with pytest.raises(ValueError, match="at least one transition"):
        Episode(())
