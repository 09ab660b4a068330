"""What a network costs in expectation, when each channel stays with some probability."""

# U: units   A: different axes

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.graph.graph import Channels, ComputationalGraph, Parameter


class ExpectedCost:
    """Flops or parameters as a differentiable function of the units' probabilities to stay.

    Units are taken as independent; a parameter has the product of the expected lengths of its
    axes.
    """

    def __init__(self, graph: ComputationalGraph, resource: str = "flops") -> None:
        weights: dict[str, int] = {}
        if resource == "flops":
            for node in graph.nodes:
                if node.positions:
                    weights[node.parameters[0]] = (
                        weights.get(node.parameters[0], 0) + node.positions
                    )
        elif resource == "parameters":
            weights = {name: 1 for name, p in graph.parameters.items() if not p.buffer}
        else:
            raise UserError(
                f"expected cost is of flops or parameters, got a budget of {resource}; take "
                "another importance and prior than bottleneck for it"
            )
        self._units = graph.num_units
        self._constant = float(sum(n.flops for n in graph.nodes) if resource == "flops" else 0)
        self._axes: dict[tuple[tuple[int, int, int], ...], int] = {}
        self._rows = [torch.zeros(self._units + 1)]  # uses of each unit; last: what is fixed
        self._rows[0][-1] = 1.0  # axis 0: of length one
        terms = [self._term(graph.parameters[name], uses) for name, uses in weights.items()]
        self._first, self._second = (torch.tensor([t[k] for t in terms]) for k in (0, 1))
        self._factor = torch.tensor([t[2] for t in terms], dtype=torch.float64)
        self._uses = torch.stack(self._rows).double()

    def __call__(self, stays: Tensor) -> Tensor:
        """Expected cost of probabilities `[U]`, a number."""
        lengths = self._uses @ torch.cat([stays.double(), stays.new_ones(1, dtype=torch.float64)])
        products = lengths[self._first] * lengths[self._second]
        return self._constant + products @ self._factor

    def _term(self, parameter: Parameter, uses: int) -> tuple[int, int, float]:
        shrinking = {c.axis: self._axis(c) for c in parameter.channels}
        rest = [n for axis, n in enumerate(parameter.shape) if axis not in shrinking]
        first, second = [*shrinking.values(), 0, 0][:2]
        return first, second, float(uses * math.prod(rest))

    def _axis(self, channels: Channels) -> int:
        if channels.runs not in self._axes:
            self._axes[channels.runs] = len(self._rows)
            units = torch.from_numpy(channels.units)  # -1, what is fixed, counts as the last
            counts = torch.bincount(units.remainder(self._units + 1), minlength=self._units + 1)
            self._rows.append(counts.float())
        return self._axes[channels.runs]
