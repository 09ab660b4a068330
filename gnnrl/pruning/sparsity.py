"""Fine-grained sparsity: single weights set to zero, shapes unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.graph.cost import zeros
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.tracing.fx_utils import attribute


def sparsify(network: nn.Module, graph: ComputationalGraph, sparsity: Mapping[str, float]) -> None:
    """Set the smallest weights of each layer named to zero, in place.

    sparsity: layer → fraction of its weights, [0, 1); exactly `zeros(...)` of them become zero.
    """
    for layer, fraction in sparsity.items():
        weight = attribute(network, graph.layers[layer].parameters[0])
        count = zeros(weight.numel(), fraction)
        smallest = weight.detach().abs().flatten().argsort(stable=True)[:count]
        with torch.no_grad():
            weight[torch.unravel_index(smallest, weight.shape)] = 0.0


def zero_mask(
    network: nn.Module, graph: ComputationalGraph, layers: Iterable[str]
) -> dict[str, Tensor]:
    """Where the weights of sparse layers are zero, by parameter name: training keeps them so."""
    names = [graph.layers[layer].parameters[0] for layer in layers]
    return {name: attribute(network, name).detach() == 0 for name in names}


def zero_masks(
    network: nn.Module,
    input_shape: tuple[int, ...],
    plans: Iterable[Mapping[str, Any]],
    opaque: Iterable[str] = (),
) -> dict[str, Tensor]:
    """As `zero_mask`, for the layers that the plans (as `to_json` gives them) made sparse.

    opaque: parts that are protected as the network is read.
    """
    sparse = {layer for plan in plans for layer in plan.get("weight_sparsity", {})}
    if not sparse:
        return {}
    graph = extract(network, torch.zeros(1, *input_shape), opaque)
    return zero_mask(network, graph, sorted(sparse & graph.layers.keys()))
