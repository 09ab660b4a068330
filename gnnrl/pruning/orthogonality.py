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


def orthogonality_repair(
    weight: Tensor, mask: Tensor | None = None, *, steps: int = 200, rate: float = 0.1
) -> Tensor:
    """Return the weight after gradient descent on its score; masked entries remain zero.

    A step that does not lower the score is undone and halved, so that the result is never worse
    than the weight given.  rate: of the first step, relative to the norm of the weights.
    """
    if steps < 0 or rate <= 0:
        raise UserError(f"steps {steps}, rate {rate}: expected at least 0 steps and a rate above 0")
    matrix = _masked(weight, mask)
    kept = _spread(mask, weight).flatten(1)
    score = _score(matrix)
    for _ in range(steps):
        gradient = _gradient(matrix) * kept
        size = float(gradient.norm())
        if size == 0.0:
            break
        length = rate * float(matrix.norm().clamp(min=1.0)) / size
        tried = matrix - length * gradient
        lower = _score(tried)
        if lower < score:
            matrix, score, rate = tried, lower, rate * 1.2
        else:
            rate /= 2
    return matrix.reshape(weight.shape).to(weight.dtype)


def _score(matrix: Tensor) -> Tensor:
    """By the smaller Gram matrix: |A^T A - 1|^2 = |A A^T|^2 - 2 |A|^2 + I."""
    rows, columns = matrix.shape
    if rows >= columns:
        gram = matrix.T @ matrix
        return (gram - torch.eye(columns, dtype=matrix.dtype)).square().mean()
    square = (matrix @ matrix.T).square().sum() - 2 * matrix.square().sum() + columns
    return square / columns**2


def _gradient(matrix: Tensor) -> Tensor:
    """4 A (A^T A - 1) / I^2, without the larger Gram matrix."""
    return 4 * ((matrix @ matrix.T) @ matrix - matrix) / matrix.shape[1] ** 2


def _masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    if weight.ndim < 2:
        raise UserError(f"a weight of shape {tuple(weight.shape)} has no filters to compare")
    return (weight.detach().double().cpu() * _spread(mask, weight)).flatten(1)


def _spread(mask: Tensor | None, weight: Tensor) -> Tensor:
    """The mask in the shape of the weight."""
    if mask is None:
        return torch.ones(weight.shape, dtype=torch.float64)
    try:
        return mask.detach().double().cpu().expand(weight.shape)
    except RuntimeError:
        raise UserError(
            f"a mask of shape {tuple(mask.shape)} does not fit a weight of {tuple(weight.shape)}"
        ) from None
