"""Drawing subsets: against enumeration, finite differences and histograms."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch_geometric.data import Data

from gnnrl.rl import subsets
from gnnrl.rl.subsets import Choice, choice_fault, subset_fault
from tests.rl.toys import ask_for_half, ring

ASK = Choice(3, torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 0]))
FREE = Choice(2, torch.zeros(4, dtype=torch.long), torch.tensor([0]))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def scores(size, seed=0):
    return torch.randn(size, generator=rng(seed), dtype=torch.float64)


def orders(ask):
    """Every order in which a subset can be drawn: the parts' least first."""
    assert ask.least.tolist()[1:] in ([], [0])
    firsts = [i for i in range(ask.size) if ask.part[i] == 0]
    for first in itertools.permutations(firsts, int(ask.least[0])):
        left = [i for i in range(ask.size) if i not in first]
        for rest in itertools.permutations(left, ask.keep - len(first)):
            yield (*first, *rest)


@pytest.mark.parametrize("ask", [ASK, FREE])
def test_the_chances_of_all_orders_sum_to_one(ask):
    score = scores(ask.size)
    chances = [subsets.log_prob(score, torch.tensor(o), ask).sum().exp() for o in orders(ask)]
    assert float(sum(chances)) == pytest.approx(1)


@pytest.mark.parametrize("ask", [ASK, FREE])
def test_subsets_are_drawn_with_their_chances(ask):
    score, generator, number = scores(ask.size, 1), rng(), 1500
    drawn = Counter(tuple(subsets.draw(score, ask, generator).tolist()) for _ in range(number))
    for order in orders(ask):
        chance = float(subsets.log_prob(score, torch.tensor(order), ask).sum().exp())
        spread = (number * chance * (1 - chance)) ** 0.5
        assert abs(drawn[order] - number * chance) < 4.5 * spread + 1


def test_the_density_has_the_gradient_of_finite_differences_also_where_all_are_chosen():
    everything = Choice(4, FREE.part, torch.tensor([1]))
    for ask in (ASK, FREE, everything):
        order = subsets.draw(scores(ask.size), ask, rng())
        score = scores(ask.size).requires_grad_()
        assert torch.autograd.gradcheck(lambda s, o=order, a=ask: subsets.log_prob(s, o, a), score)


def test_many_orders_at_once_have_the_densities_of_each():
    score = scores(5)
    several = torch.stack([subsets.draw(score, ASK, rng(seed)) for seed in range(4)])
    together = subsets.log_prob(score.expand(4, -1), several, ASK)
    alone = torch.stack([subsets.log_prob(score, order, ASK) for order in several])
    torch.testing.assert_close(together, alone)


def test_the_chance_of_being_chosen_is_about_right_and_sums_to_the_number_chosen():
    ask = Choice(60, torch.zeros(200, dtype=torch.long), torch.tensor([0]))
    score = scores(200)
    expected = subsets.inclusion(score, ask)
    drawn = sum(
        torch.from_numpy(subsets.as_mask(subsets.draw(score, ask, rng(s)), 200)).double()
        for s in range(1500)
    )
    assert float(expected.sum()) == pytest.approx(60, abs=1e-6)
    assert float((expected - drawn / 1500).abs().max()) < 0.05


def test_the_chance_of_being_chosen_can_be_differentiated():
    ask = Choice(3, torch.zeros(8, dtype=torch.long), torch.tensor([0]))
    score = scores(8).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: subsets.inclusion(s, ask), score, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_scores_every_part_keeps_its_least(seed):
    generator = rng(seed)
    part = torch.randint(0, 4, (40,), generator=generator)
    room = torch.bincount(part, minlength=4)
    least = torch.minimum(room, torch.randint(0, 4, (4,), generator=generator))
    ask = Choice(int(least.sum()) + seed, part, least)
    score = 100 * torch.randn(40, generator=generator)
    for order in (subsets.best(score, ask), subsets.draw(score, ask, generator)):
        assert choice_fault(subsets.as_mask(order, 40), ask) is None


def test_the_best_subset_is_that_of_the_highest_scores_where_no_part_is_short():
    ask = Choice(3, torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 1]))
    chosen = subsets.as_mask(subsets.best(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]), ask), 5)
    assert chosen.tolist() == [True, True, True, False, False]
    chosen = subsets.as_mask(subsets.best(torch.tensor([3.0, 2.0, 1.0, 0.5, 2.5]), ask), 5)
    assert chosen.tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep": None}, "no tensor keep"),
        ({"keep": torch.tensor([9])}, "asks for 9 of 8"),
        ({"keep": torch.tensor([1])}, "asks for 1 of 8"),
        ({"part": torch.zeros(3, dtype=torch.long)}, "part of shape"),
        ({"part": torch.full((8,), 7)}, "a part outside of the 2"),
        ({"least": torch.tensor([9, 0])}, "more of a part than there is"),
        ({"score": torch.zeros(2)}, "score of shape"),
    ],
)
def test_an_observation_that_asks_for_the_impossible_is_refused(changes, said):
    seen: Data = ring(rng(), 8)
    ask_for_half(seen)
    assert subset_fault(seen) is None
    for key, value in changes.items():
        seen[key] = value
    assert said in subset_fault(seen)
