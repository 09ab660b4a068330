"""What a network costs in expectation, when each channel is kept with some probability."""

# U: units   A: different axes

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.resources import RESOURCES, costs_of, counted


class ExpectedCost:
    """A cost as a differentiable function of the units' probabilities to be kept.

    Units are taken as independent; a parameter has the product of the expected lengths of its
    axes.
    """

    def __init__(self, graph: ComputationalGraph, resource: str = "flops") -> None:
        if not RESOURCES[resource].is_counted:
            raise UserError(
                f"expected cost is of {' or '.join(counted())}, got a budget of {resource}; take "
                "another importance and prior than bottleneck for it"
            )
        self._model = costs_of(resource, graph)
        fixed = graph.num_units  # what is fixed, -1 among an axis's units, is counted last
        self._uses = torch.stack(
            [
                torch.bincount(torch.from_numpy(axis.units) % (fixed + 1), minlength=fixed + 1)
                for axis in self._model.axes
            ]
        ).double()  # [A, U + 1]

    def __call__(self, kept: Tensor) -> Tensor:
        """Expected cost of probabilities to be kept `[U]`, a number."""
        lengths = self._uses @ torch.cat([kept.double(), kept.new_ones(1, dtype=torch.float64)])
        return self._model.of_lengths(lengths)
