"""How wide each group is by what losing channels costs: greedy steps, then exchanges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gnnrl.pruning.allocation import WORTH, allocate

SIZES = {"a": 12, "b": 8, "c": 16}
FLOOR = np.array([4, 4, 4])


def curves_of(seed: int) -> dict[str, torch.Tensor]:
    """Residuals that grow ever faster with the channels that are removed."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.cat([torch.zeros(1), torch.rand(size, generator=draw).sort().values]).cumsum(0)
        * (0.2 + torch.rand(1, generator=draw))
        for name, size in SIZES.items()
    }


def chain(counts: np.ndarray) -> float:
    """Multiply-accumulates of layers in a row."""
    a, b, c = (float(count) for count in counts)
    return 3 * a + a * b + b * c + 10 * c


def stepped(counts: np.ndarray) -> float:
    """As a kernel that computes four channels at once, and has to be called."""
    return 50.0 + chain(np.ceil(counts / 4) * 4)


def lost(curves: dict[str, torch.Tensor], counts: np.ndarray) -> float:
    removed = zip(SIZES.items(), counts, strict=True)
    return sum(float(curves[name][size - int(count)]) for (name, size), count in removed)


def kept(curves, cost, share: float, multiple: int) -> np.ndarray:
    whole = np.array(list(SIZES.values()))
    ratios = allocate(curves, SIZES, FLOOR, cost, share * cost(whole), multiple)
    return np.round(ratios * whole).astype(int)


def best(curves, cost, share: float, multiple: int) -> float:
    """The least residual of all widths within the budget, by trying them."""
    limit = share * cost(np.array(list(SIZES.values())))
    widths = [[*range(f, s, multiple), s] for f, s in zip(FLOOR, SIZES.values(), strict=True)]
    tried = (np.array(counts) for counts in itertools.product(*widths))
    return min(lost(curves, counts) for counts in tried if cost(counts) <= limit)


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("share", [0.7, 0.5, 0.35])
@pytest.mark.parametrize("cost", [chain, stepped])
def test_widths_meet_the_budget_and_lose_little_more_than_the_best_ones(cost, share, multiple):
    for seed in range(8):
        curves = curves_of(seed)
        found = kept(curves, cost, share, multiple)
        assert (found >= FLOOR).all()
        assert cost(found) <= share * cost(np.array(list(SIZES.values())))
        assert ((found - FLOOR) % multiple == 0)[found < list(SIZES.values())].all()
        slack = 1.1 if multiple > 1 else 1.3  # single channels are not exchanged
        assert lost(curves, found) <= slack * best(curves, cost, share, multiple)


def test_room_that_the_last_step_left_is_used():
    # step by step b goes first, as it loses less for what it frees, and then a, which is enough
    curves = {"a": torch.tensor([0.0, *[6.0] * 4]), "b": torch.arange(9) * 0.3}

    def cost(counts: np.ndarray) -> float:
        return 64.0 * (counts[0] > 0) + 36.0 * counts[1] / 8

    ratios = allocate(curves, {"a": 4, "b": 8}, np.array([0, 0]), cost, 37.0, multiple=4)
    assert ratios.tolist() == [0.0, 1.0]


def test_an_exchange_that_saves_next_to_nothing_is_left():
    whole, equal = {"a": 4, "b": 4}, torch.arange(5.0)
    curves = {"a": equal * (1 + WORTH / 4), "b": equal}

    def cost(counts: np.ndarray) -> float:
        return float(counts.sum())

    assert allocate(curves, whole, np.array([2, 2]), cost, 6.0, multiple=2).tolist() == [1.0, 0.5]


def test_a_group_without_a_curve_stays_whole_as_long_as_others_can_give():
    curves = {name: curve for name, curve in curves_of(0).items() if name != "b"}
    assert kept(curves, chain, 0.5, 1)[1] == SIZES["b"]
    assert kept(curves, chain, 0.26, 1)[1] < SIZES["b"]
