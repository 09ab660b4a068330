"""Why the thesis's policy gradient could not learn, and that ours can (docs/inverted-reward.md).

The same three questions to both losses: does the gradient know the mask; does it vanish for a
reward that says nothing; does it point to the filters that the reward speaks for.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gnnrl.rl import subsets
from gnnrl.rl.subsets import Choice

Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]  # scores [A], orders [B, K], rewards [B]
FILTERS, KEPT, MASKS = 24, 8, 400
ASK = Choice(KEPT, torch.zeros(FILTERS, dtype=torch.long), torch.tensor([1]))


def old(scores: Tensor, orders: Tensor, rewards: Tensor) -> Tensor:
    """The thesis's: sum_i -log softmax(z)_i * R over all filters, whatever was kept."""
    scores = scores.clone().requires_grad_()
    loss = sum((-scores.log_softmax(0)).sum() * reward for reward in rewards) / len(rewards)
    return torch.autograd.grad(loss, scores)[0]


def ours(scores: Tensor, orders: Tensor, rewards: Tensor) -> Tensor:
    """Log-probability of the mask that was executed, times its advantage over the others."""
    scores = scores.clone().requires_grad_()
    advantage = rewards - (rewards.sum() - rewards) / (len(rewards) - 1)
    log_prob = subsets.log_prob(scores.expand(len(orders), -1), orders, ASK).sum(1)
    return torch.autograd.grad(-(advantage * log_prob).mean(), scores)[0]


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, masks drawn from them, and what each filter is worth."""
    generator = torch.Generator().manual_seed(seed)
    scores = 0.3 * torch.randn(FILTERS, generator=generator, dtype=torch.float64)
    orders = torch.stack([subsets.draw(scores, ASK, generator) for _ in range(MASKS)])
    return scores, orders, torch.randn(FILTERS, generator=generator, dtype=torch.float64)


def the_gradient_depends_on_the_mask(gradient: Gradient) -> None:
    scores, orders, _ = drawn()
    rewards = torch.tensor([0.3, 0.7], dtype=torch.float64)
    one, other = gradient(scores, orders[:2], rewards), gradient(scores, orders[2:4], rewards)
    assert not torch.allclose(one, other)


def the_gradient_vanishes_for_a_constant_reward(gradient: Gradient) -> None:
    scores, orders, _ = drawn()
    rewards = torch.full((MASKS,), 0.3, dtype=torch.float64)
    assert gradient(scores, orders, rewards).abs().max() < 1e-9


def the_gradient_points_to_what_is_worth_keeping(gradient: Gradient) -> None:
    scores, orders, worth = drawn()
    rewards = worth[orders].sum(1)
    rise = -gradient(scores, orders, rewards)
    assert torch.corrcoef(torch.stack([rise, worth]))[0, 1] > 0.7


QUESTIONS = [
    the_gradient_depends_on_the_mask,
    the_gradient_vanishes_for_a_constant_reward,
    the_gradient_points_to_what_is_worth_keeping,
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_ours_passes(question):
    question(ours)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("sign", [1, -1], ids=["as published", "inverted"])
def test_the_old_loss_fails(question, sign):
    with pytest.raises(AssertionError):
        question(lambda *given: sign * old(*given))


def test_the_old_gradient_is_the_reward_times_a_fixed_direction():
    """dL/dz_j = R (n p_j - 1): the mask is not in it."""
    scores, orders, _ = drawn()
    rewards = torch.tensor([0.7], dtype=torch.float64)
    expected = 0.7 * (FILTERS * scores.softmax(0) - 1)
    torch.testing.assert_close(old(scores, orders[:1], rewards), expected)
