"""Fine-grained sparsity: single weights set to zero, shapes unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.graph.cost import weight_of, zeros
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.masks import unpacked
from gnnrl.pruning.plan import PruningPlan
from gnnrl.tracing.fx_utils import attribute


def sparsify(network: nn.Module, graph: ComputationalGraph, plan: PruningPlan) -> None:
    """Set the weights to zero that a plan's masks and sparsities ask for, in place.

    Of a layer with a sparsity the smallest, exactly `zeros(...)` of them.  Raises `UserError` where
    a mask is not one of the layer's weights.
    """
    for layer, text in plan.masks.items():
        weight = attribute(network, weight_of(graph, layer))
        kept = torch.from_numpy(unpacked(layer, text, weight.numel())).to(weight.device)
        with torch.no_grad():
            weight.mul_(kept.view(weight.shape))
    for layer, fraction in plan.weight_sparsity.items():
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
    made = ("weight_sparsity", "masks")
    sparse = {layer for plan in plans for key in made for layer in plan.get(key, {})}
    if not sparse:
        return {}
    graph = extract(network, torch.zeros(1, *input_shape), opaque)
    return zero_mask(network, graph, sorted(sparse & graph.layers.keys()))
