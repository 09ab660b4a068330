"""The Gram solve inside an evaluation: a subnet whose layers compensate for the inputs they lost.

Second moments of the dense network's layers are collected once; for a plan each layer that loses
inputs gets the least-squares map of those that it keeps.  One small solve a layer, no image.
"""

# D, O: as in linear_maps.py

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.compensation.elimination import inputs_of, ridged
from gnnrl.pruning.compensation.linear_maps import Reader
from gnnrl.pruning.compensation.moments import Calibration


@dataclass(frozen=True)
class _Layer:
    """second `[D, D]`: moments.  matrix `[D, D]`, right `[D, O]`: of the normal equations.
    units, filters: of the input channels and of the filters."""

    reader: Reader
    second: Tensor
    matrix: Tensor
    right: Tensor
    units: np.ndarray
    filters: np.ndarray


class GramSolve:
    """Compensates subnets in place."""

    def __init__(self, graph: ComputationalGraph, calibration: Calibration) -> None:
        self._layers = []
        for reader in calibration.readers:
            if not bool((reader.units >= 0).any()):
                continue
            moments = calibration.moments[reader.layer]
            right = moments.second.double() @ moments.solution.double()
            second, matrix = moments.second.double(), ridged(moments.second)
            filters = graph.layers[reader.layer].filter_units
            self._layers.append(
                _Layer(reader, second, matrix, right, reader.units.numpy(), filters)
            )

    def __call__(self, subnet: nn.Module, keep: np.ndarray) -> None:
        """Give the layers of a subnet that lost inputs the weights that compensate for them.

        keep `[num_units]`: units that the subnet keeps.
        """
        stays, names = np.append(keep, True), dict(subnet.named_modules())
        for layer in self._layers:
            channels = np.flatnonzero(stays[layer.units])
            if len(channels) < len(layer.units) and layer.reader.layer in names:
                filters = torch.from_numpy(np.flatnonzero(stays[layer.filters]))
                _write(subnet, layer, torch.from_numpy(channels), filters)


def _write(subnet: nn.Module, layer: _Layer, channels: Tensor, filters: Tensor) -> None:
    last = torch.tensor([len(layer.matrix) - 1])
    stay = torch.cat([inputs_of(channels, layer.reader.taps), last])
    factor = torch.linalg.cholesky(layer.matrix[stay][:, stay])
    best = torch.cholesky_solve(layer.right[stay][:, filters], factor)
    mean, variance = _statistics(layer.second[stay][:, stay], best)
    module: Any = subnet.get_submodule(layer.reader.layer)
    like = module.weight
    weight = best[:-1].t().reshape(like.shape).to(like)
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    module._parameters["weight"] = weight
    constant = best[-1].to(like)
    if layer.reader.norm:
        norm: Any = subnet.get_submodule(layer.reader.norm)
        norm._parameters["weight"] = torch.sqrt(variance + norm.eps).to(like)
        norm._parameters["bias"] = constant + mean.to(like)
        norm._buffers["running_mean"] = mean.to(like)
        norm._buffers["running_var"] = variance.to(like)
        if module.bias is not None:
            module._parameters["bias"] = torch.zeros_like(module.bias)
    elif module.bias is not None:
        module._parameters["bias"] = constant


def _statistics(second: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance `[O]` of a layer's output without its constant."""
    weights = best[:-1]
    mean = weights.t() @ second[:-1, -1]
    square = (weights * (second[:-1, :-1] @ weights)).sum(0)
    return mean, (square - mean**2).clamp(min=1e-6)
