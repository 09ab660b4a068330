"""Which channels can be removed: backward elimination by the residual of least squares.

A layer that loses inputs can compensate for them with the weights of those that it keeps.  The
residual of its best fit is the cost of losing a channel.  Channels are removed one by one, the
cheapest first (optimal brain surgeon, Hassibi & Stork 1993, with a channel's weights in place of
one weight; the inverse is updated, never computed again).
"""

# I: input channels   D: inputs of the map   O: outputs   u: channels of the group

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3
"""Added to the diagonal of second moments, in parts of its mean."""

TOGETHER = 256
"""Columns of the inverse by which it is updated at once."""


@dataclass(frozen=True)
class Moments:
    """Moments of a layer's inputs on calibration images.

    second `[D, D]`: mean of products of its inputs, the last one a constant 1.  solution `[D, O]`:
    the dense layer's own map.  metric `[O, O]`: how much the network's logits change with the
    layer's output; None: every output counts the same.
    """

    second: Tensor
    solution: Tensor
    metric: Tensor | None = None


def ridged(second: Tensor, constant: bool = True) -> Tensor:
    """Second moments in double precision, with the ridge.

    constant: the last input is one, which has no ridge.
    """
    matrix = second.double().clone()
    penalised = matrix.diagonal()[:-1] if constant else matrix.diagonal()
    penalised += RIDGE * penalised.mean()
    return matrix


def inputs_of(channels: Tensor, taps: int) -> Tensor:
    """Rows of the map that belong to input channels `[u]`, without the constant `[u * taps]`."""
    return (channels[:, None] * taps + torch.arange(taps)).reshape(-1)


class Elimination:
    """The state of one layer while channels of a group are removed.

    The inverse is kept for the inputs that belong to the group. Each removal is an update of low
    rank; updates are collected and applied together, because a single one is bound by memory.
    """

    def __init__(self, moments: Moments, members: list[Tensor], taps: int) -> None:
        matrix, solution = ridged(moments.second), moments.solution.double()
        inverse = _inverted(matrix)
        ridge = (matrix.diagonal() - moments.second.diagonal().double())[:, None]
        refitted = solution - inverse @ (ridge * solution)
        self._weights = refitted.new_ones(refitted.shape[1])
        if moments.metric is not None:  # outputs in whose directions the metric is diagonal
            self._weights, vectors = torch.linalg.eigh(moments.metric.double())
            refitted = refitted @ vectors
        rows = torch.stack([inputs_of(channels, taps) for channels in members])
        self._each = each = rows.shape[1]
        self._inverse = _part(inverse, rows.flatten())
        self._map = refitted[rows]
        places = torch.arange(len(members))
        self._blocks = self._inverse.view(len(members), each, len(members), each)[places, :, places]
        self._members = list(range(len(members)))  # by place, with those just removed
        self._updates = self._no_updates()

    def costs(self, candidates: list[int]) -> Tensor:
        """Return what removing each candidate would add to the residual `[candidates]`."""
        where = torch.tensor([self._members.index(member) for member in candidates])
        squares = torch.bmm(self._map * self._weights, self._map.transpose(1, 2))[where]
        solved = torch.linalg.solve(self._blocks[where], squares)
        return solved.diagonal(dim1=1, dim2=2).sum(1)

    def drop(self, member: int) -> None:
        """Remove a channel; the others make up for it."""
        place, each = self._members.index(member), self._each
        rows = slice(place * each, (place + 1) * each)
        columns = torch.addmm(
            self._inverse[:, rows], self._updates, self._updates[rows].t(), alpha=-1
        )
        factor = torch.linalg.cholesky(self._blocks[place])
        update = torch.linalg.solve_triangular(factor, columns.t(), upper=False).t()
        lost = torch.linalg.solve_triangular(factor, self._map[place], upper=False)
        self._map.view(len(update), -1).addmm_(update, lost, alpha=-1)
        by_member = update.reshape(len(self._members), each, each)
        self._blocks.baddbmm_(by_member, by_member.transpose(1, 2), alpha=-1)
        self._updates = torch.cat([self._updates, update], 1)
        self._removed.add(member)
        if self._updates.shape[1] >= TOGETHER:
            self._apply_updates()

    def _apply_updates(self) -> None:
        """Update the inverse, and forget the removed members."""
        count, each = len(self._members), self._each
        left = [i for i, member in enumerate(self._members) if member not in self._removed]
        rows = torch.arange(count * each).view(count, each)[left].flatten()
        updates = self._updates[rows]
        self._inverse = self._inverse[rows][:, rows].addmm_(updates, updates.t(), alpha=-1)
        self._map, self._blocks = self._map[left], self._blocks[left]
        self._members = [self._members[i] for i in left]
        self._updates = self._no_updates()

    def _no_updates(self) -> Tensor:
        self._removed: set[int] = set()
        return self._inverse.new_empty(len(self._inverse), 0)


def _part(matrix: Tensor, rows: Tensor) -> Tensor:
    """Return these rows and columns; without copying where they are the first ones in order."""
    if torch.equal(rows, torch.arange(len(rows))):
        return matrix[: len(rows), : len(rows)]
    return matrix[rows][:, rows]


def _inverted(matrix: Tensor) -> Tensor:
    """Return the inverse of a symmetric matrix, positive definite but for rounding."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.inv(matrix) if int(info) else torch.cholesky_inverse(factor)


def eliminate(
    readers: list[Elimination], size: int, advance: Callable[[], object] = lambda: None
) -> tuple[list[int], list[float]]:
    """Return the order in which `size` channels go, and what each adds to its readers' residual.

    advance: called after each channel.
    """
    alive, order, costs = list(range(size)), [], []
    while alive:
        total = torch.stack([reader.costs(alive) for reader in readers]).sum(0)
        best = int(total.argmin())
        member = alive.pop(best)
        order.append(member)
        costs.append(max(float(total[best]), 0.0))
        for reader in readers if alive else ():
            reader.drop(member)
        advance()
    return order, costs
