"""The normal equations of layers that lose inputs: one by one, or many at once on a GPU.

A layer that keeps some of its inputs needs the rows and columns of those alone.  On a processor
they are picked, which makes the equations small.  On a GPU a small solve takes as long as a large
one, and many as long as one: layers of the same size are solved together, with those inputs that
are gone left in as unknowns that are zero.
"""

# D, O: as in linear_maps.py   L: layers of the same size   P: plans

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gnnrl.pruning.compensation.elimination import Moments, inputs_of, ridged
from gnnrl.pruning.compensation.linear_maps import Reader

ELEMENTS, OF_PLANS = 2**24, 2**26
"""Of the matrices that are solved together, at most: 128 MiB for one plan, 512 MiB for several."""

Statistics = tuple[Tensor, Tensor]
"""Mean and variance `[O]` of a layer's output without its constant, for its norm."""


@dataclass(frozen=True, eq=False)
class Equations:
    """Of one layer: second `[D, D]`: moments.  solution `[D, O]`: the dense map.  matrix `[D, D]`,
    right `[D, O]`: the normal equations.  units, filters: of its input channels, of its filters."""

    reader: Reader
    second: Tensor
    solution: Tensor
    matrix: Tensor
    right: Tensor
    units: np.ndarray
    filters: np.ndarray

    @classmethod
    def of(cls, reader: Reader, moments: Moments, filters: np.ndarray) -> Equations:
        """Return the equations of a layer by its moments, in double precision."""
        second, solution = moments.second.double(), moments.solution.double()
        matrix, right = ridged(moments.second), second @ solution
        return cls(reader, second, solution, matrix, right, reader.units.numpy(), filters)

    def kept(self, stays: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return which rows of the map and which filters are left.

        stays `[num_units + 1]`: units that are kept, and the fixed one.
        """
        channels = torch.from_numpy(np.flatnonzero(stays[self.units]))
        filters = torch.from_numpy(np.flatnonzero(stays[self.filters]))
        last = torch.tensor([len(self.matrix) - 1])[: self.reader.has_constant]
        return torch.cat([inputs_of(channels, self.reader.taps), last]), filters

    @property
    def inputs(self) -> Tensor:
        """Unit of each input of the map `[D]`, -1: fixed, as the constant is."""
        return torch.cat(
            [self.reader.units.repeat_interleave(self.reader.taps), torch.tensor([-1])]
        )

    def statistics(self, kept: Tensor, best: Tensor) -> Statistics:
        """Return the statistics of the map `best` of the inputs `kept`."""
        if not self.reader.norm:
            return best[-1], best[-1]
        return _statistics(best, self.second[kept][:, kept])


def _statistics(best: Tensor, second: Tensor) -> Statistics:
    """Of maps `[..., D, O]` by the moments `[..., D, D]` of their inputs."""
    weights = best[..., :-1, :]
    mean = (weights.mT @ second[..., :-1, -1:]).squeeze(-1)
    square = (weights * (second[..., :-1, :-1] @ weights)).sum(-2)
    return mean, (square - mean**2).clamp(min=1e-6)


class Stacks:
    """The equations of all layers on a GPU, those of the same size together."""

    def __init__(self, layers: Sequence[Equations], place: torch.device) -> None:
        sizes: dict[tuple[object, ...], list[Equations]] = {}
        for each in layers:
            reader = each.reader
            alike = (*each.right.shape, reader.kernel, reader.linear)
            sizes.setdefault(alike, []).append(each)
        self._stacks = [
            _Stack(stack[k : k + most], place)
            for stack in sizes.values()
            for most in [max(1, ELEMENTS // stack[0].second.numel())]
            for k in range(0, len(stack), most)
        ]

    def solved(
        self, lost: Sequence[Equations], stays: np.ndarray
    ) -> Iterator[tuple[Equations, Tensor, Statistics]]:
        """Yield the layers that lost inputs, each with its best map and the map's statistics."""
        wanted = {id(each) for each in lost}
        for stack in self._stacks:
            if any(id(each) in wanted for each in stack.layers):
                yield from (found for found in stack.solved(stays) if id(found[0]) in wanted)

    def maps(self, stays: Tensor) -> Iterator[tuple[Sequence[Equations], Tensor]]:
        """Yield layers of the same size and their maps `[P, L, D, O]`, zero where units are gone.

        Those of layers that lost no inputs are the dense ones.  stays `[P, num_units + 1]`, on the
        GPU: what each plan keeps, and the fixed unit.
        """
        for stack in self._stacks:
            few = stays.split(stack.plans_at_once)
            yield stack.layers, torch.cat([stack.masked_maps(part) for part in few])


class _Stack:
    def __init__(self, layers: Sequence[Equations], place: torch.device) -> None:
        self.layers, self._place = layers, place
        self._second = torch.stack([each.second for each in layers]).to(place)
        self._right = torch.stack([each.right for each in layers]).to(place)
        self._dense = torch.stack([each.solution for each in layers]).to(place)
        ridge = [(each.matrix - each.second).diagonal() for each in layers]
        self._ridge = torch.stack(ridge).to(place)
        self._inputs = torch.stack([each.inputs for each in layers]).to(place)
        self._filters = torch.from_numpy(np.stack([each.filters for each in layers])).to(place)
        constants = [each.reader.has_constant for each in layers]
        self._constants = torch.tensor(constants, device=place)
        self.plans_at_once = max(1, OF_PLANS // max(1, self._second.numel()))

    def masked_maps(self, stays: Tensor) -> Tensor:
        """Return the maps `[P, L, D, O]` for `stays` `[P, num_units + 1]`."""
        inputs = stays[:, self._inputs]
        lost = ~inputs.all(-1)[..., None, None]
        inputs[..., -1] &= self._constants
        maps = torch.where(lost, self._maps(inputs.double()), self._dense)
        return maps * stays[:, self._filters][..., None, :]

    def solved(self, stays: np.ndarray) -> Iterator[tuple[Equations, Tensor, Statistics]]:
        left = [each.kept(stays) for each in self.layers]
        mask = torch.zeros(self._ridge.shape, dtype=torch.float64)
        for row, (kept, _) in zip(mask, left, strict=True):
            row[kept] = 1.0
        maps = self._maps(mask.to(self._place))
        means, variances = _statistics(maps, self._second)
        indices = [index for pair in left for index in pair]
        parts = torch.cat(indices).to(self._place).split([len(index) for index in indices])
        for k, each in enumerate(self.layers):
            kept, filters = parts[2 * k : 2 * k + 2]
            best = maps[k].index_select(0, kept).index_select(1, filters)
            statistics = best[-1], best[-1]
            if each.reader.norm:
                statistics = (
                    means[k].index_select(0, filters),
                    variances[k].index_select(0, filters),
                )
            yield each, best, statistics

    def _maps(self, mask: Tensor) -> Tensor:
        """Return the maps `[..., L, D, O]` without the inputs outside the mask `[..., L, D]`."""
        rows = mask[..., None]
        matrix = (self._second * rows).mul_(rows.mT)
        matrix.diagonal(dim1=-2, dim2=-1).add_(self._ridge * mask + (1.0 - mask))
        factor = torch.linalg.cholesky(matrix)
        return torch.cholesky_solve(self._right * rows, factor)
