"""Orthogonality: the definition by numpy, exact at its minimum, never worse after repair."""

from __future__ import annotations

import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.pruning.orthogonality import (
    orthogonality_repair,
    orthogonality_score,
)


def oracle(weight, mask):
    """The definition, entry by entry."""
    rows = (weight * mask).reshape(len(weight), -1).numpy().astype(float)
    total, size = 0.0, rows.shape[1]
    for i in range(size):
        for j in range(size):
            total += (float(rows[:, i] @ rows[:, j]) - (i == j)) ** 2
    return total / size**2


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=generator) / shape[0] ** 0.5
    return weight, torch.rand(*shape, generator=generator) < 0.6


@pytest.mark.parametrize("shape", [(5, 8), (9, 4), (6, 2, 3, 3), (4, 4)])
def test_the_score_is_its_definition(shape):
    weight, mask = drawn(*shape)
    assert orthogonality_score(weight, mask) == pytest.approx(oracle(weight, mask), rel=1e-6)
    ones = torch.ones_like(mask)
    assert orthogonality_score(weight) == pytest.approx(oracle(weight, ones), rel=1e-6)


def test_orthonormal_columns_score_zero_and_repair_leaves_them():
    weight = torch.linalg.qr(drawn(9, 4)[0])[0]
    assert orthogonality_score(weight) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(orthogonality_repair(weight), weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 8), (9, 4), (6, 2, 3, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_repair_lowers_the_score_and_keeps_what_is_masked_at_zero(shape, seed):
    weight, mask = drawn(*shape, seed=seed)
    repaired = orthogonality_repair(weight, mask)
    assert (repaired[~mask] == 0).all() and repaired.shape == weight.shape
    assert orthogonality_score(repaired, mask) < 0.9 * orthogonality_score(weight, mask)


def test_repair_reaches_what_the_shape_allows_where_nothing_is_masked():
    weight = drawn(5, 8)[0]
    repaired = orthogonality_repair(weight, steps=2000)
    rank_is_missing = (8 - 5) / 8**2
    assert orthogonality_score(repaired) == pytest.approx(rank_is_missing, rel=1e-3)
    assert torch.isfinite(repaired).all()


def test_whole_filters_are_masked_by_a_mask_that_spreads():
    weight = drawn(4, 3, 3, 3)[0]
    stays = torch.tensor([True, False, True, True])
    cut = orthogonality_score(weight[stays])
    assert orthogonality_score(weight, stays[:, None, None, None]) == pytest.approx(cut)


def test_nonsense_is_refused():
    with pytest.raises(UserError, match="no filters"):
        orthogonality_score(torch.zeros(3))
    with pytest.raises(UserError, match="does not fit"):
        orthogonality_score(torch.zeros(3, 4), torch.ones(5))
    with pytest.raises(UserError, match="rate 0"):
        orthogonality_repair(torch.zeros(3, 4), rate=0)
