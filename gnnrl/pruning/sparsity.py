"""Fine-grained sparsity: single weights set to zero, the shapes stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gnnrl.graph.cost import zeros
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.nodes import attribute


def sparsify(network: nn.Module, graph: ComputationalGraph, sparsity: Mapping[str, float]) -> None:
    """Set the smallest weights of each layer named to zero, in place.

    sparsity: layer → fraction of its weights, [0, 1); exactly `zeros(...)` of them become zero.
    """
    for layer, fraction in sparsity.items():
        weight = attribute(network, graph.layers[layer].parameters[0])
        count = zeros(weight.numel(), fraction)
        smallest = weight.detach().abs().flatten().argsort(stable=True)[:count]
        with torch.no_grad():
            weight.view(-1)[smallest] = 0.0


def zero_mask(
    network: nn.Module, graph: ComputationalGraph, layers: Mapping[str, float]
) -> dict[str, Tensor]:
    """Where the weights of sparse layers are zero, by parameter name: training keeps them so."""
    names = [graph.layers[layer].parameters[0] for layer in layers]
    return {name: attribute(network, name).detach() == 0 for name in names}
