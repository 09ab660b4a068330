"""Orthogonality: the definition by numpy, exact at its minimum."""

from __future__ import annotations

import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.pruning.orthogonality import orthogonality_score


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


def test_orthonormal_columns_score_zero():
    weight = torch.linalg.qr(drawn(9, 4)[0])[0]
    assert orthogonality_score(weight) == pytest.approx(0, abs=1e-12)


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
