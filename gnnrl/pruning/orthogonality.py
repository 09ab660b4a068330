"""How far a layer's weights are from orthonormal, with or without some of its filters.

A layer preserves the norm of signals when its weights are orthonormal; pruning destroys that
(Lee et al. 2020, arXiv:1906.06307, section 4: approximate dynamical isometry).  The importance
`orthogonality` ranks filters by what the score loses with each of them.
"""

# O: filters   I: weights of one filter   W: weight [O, ...] read as [O, I]

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl.errors import UserError


def orthogonality_score(weight: Tensor, mask: Tensor | None = None) -> float:
    """Mean squared entry of (W * M)^T (W * M) - 1, [I, I]; 0 where the columns are orthonormal.

    weight [O, ...], mask of the same shape or one that expands to it (True or 1: kept).  Lower is
    better (the score of the early-compression thesis).
    Raises `UserError` for a weight without filters or a mask of another shape.
    """
    return float(_score(_masked(weight, mask)))


def rise_without_each_row(matrix: Tensor) -> Tensor:
    """How much the score of a matrix [O, I] rises when one row is set to zero, for each row [O].

    By |G - w w^T - 1|^2 - |G - 1|^2 = |w|^4 + 2 |w|^2 - 2 w^T G w, with G = W^T W and row w.
    """
    matrix = matrix.double()
    products = matrix @ matrix.T
    norms = products.diagonal()
    rise = norms.square() + 2 * norms - 2 * products.square().sum(1)
    return rise / matrix.shape[1] ** 2


def _score(matrix: Tensor) -> Tensor:
    """By the smaller Gram matrix: |A^T A - 1|^2 = |A A^T|^2 - 2 |A|^2 + I."""
    rows, columns = matrix.shape
    if rows >= columns:
        gram = matrix.T @ matrix
        return (gram - torch.eye(columns, dtype=matrix.dtype)).square().mean()
    square = (matrix @ matrix.T).square().sum() - 2 * matrix.square().sum() + columns
    return square / columns**2


def _masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    if weight.ndim < 2:
        raise UserError(f"a weight of shape {tuple(weight.shape)} has no filters to compare")
    matrix = weight.detach().double().cpu()
    if mask is not None:
        try:
            matrix = matrix * mask.detach().double().cpu().expand(weight.shape)
        except RuntimeError:
            raise UserError(
                f"a mask of shape {tuple(mask.shape)} does not fit a weight of "
                f"{tuple(weight.shape)}"
            ) from None
    return matrix.flatten(1)
