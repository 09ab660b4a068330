"""Which channels can be removed: backward elimination by the residual of least squares.

A layer that loses inputs can compensate for them with the weights of those that it keeps.  The
residual of its best fit is the cost of losing a channel.  Channels are removed one by one, the
cheapest first (optimal brain surgeon, Hassibi & Stork 1993, with a channel's weights in place of
one weight; the inverse is updated, never computed again).
"""

# I: input channels   D: inputs of the map   O: outputs   u: channels of the group

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3
"""Added to the diagonal of second moments, in parts of its mean."""


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


def ridged(second: Tensor) -> Tensor:
    """Second moments in double precision, with the ridge (not on the constant)."""
    matrix = second.double().clone()
    matrix.diagonal()[:-1] += RIDGE * matrix.diagonal()[:-1].mean()
    return matrix


def inputs_of(channels: Tensor, taps: int) -> Tensor:
    """Rows of the map that belong to input channels `[u]`, without the constant `[u * taps]`."""
    return (channels[:, None] * taps + torch.arange(taps)).reshape(-1)


class Elimination:
    """The state of one layer while channels of a group are removed."""

    def __init__(self, moments: Moments, members: list[Tensor], taps: int) -> None:
        matrix = ridged(moments.second)
        self._inverse = torch.linalg.inv(matrix)
        self._map = self._inverse @ (moments.second.double() @ moments.solution.double())
        self._metric = None if moments.metric is None else moments.metric.double()
        self._rows = [inputs_of(channels, taps) for channels in members]

    def costs(self, candidates: list[int]) -> Tensor:
        """Return what removing each candidate would add to the residual `[candidates]`."""
        blocks = torch.stack([self._inverse[r][:, r] for r in (self._rows[c] for c in candidates)])
        maps = torch.stack([self._map[self._rows[c]] for c in candidates])
        solved = torch.linalg.solve(blocks, maps)
        weighed = maps if self._metric is None else maps @ self._metric
        return (weighed * solved).sum((1, 2))

    def drop(self, member: int) -> None:
        """Remove a channel; the others compensate for it."""
        rows = self._rows[member]
        columns = self._inverse[:, rows].clone()
        block = columns[rows].clone()
        self._map -= columns @ torch.linalg.solve(block, self._map[rows])
        self._inverse -= columns @ torch.linalg.solve(block, columns.t())
        self._map[rows] = 0.0
        self._inverse[rows] = 0.0
        self._inverse[:, rows] = 0.0


def eliminate(readers: list[Elimination], size: int) -> tuple[list[int], list[float]]:
    """Return the order in which `size` channels are removed, and what each adds to the residual."""
    alive, order, costs = list(range(size)), [], []
    while alive:
        total = torch.stack([reader.costs(alive) for reader in readers]).sum(0)
        best = int(total.argmin())
        member = alive.pop(best)
        order.append(member)
        costs.append(max(float(total[best]), 0.0))
        for reader in readers if alive else ():
            reader.drop(member)
    return order, costs
