"""Kernels that can be made smaller, and the graph and the network with smaller ones.

A convolution keeps the centre of its kernel, and its padding shrinks with it, so that its output
has the size that it had: it computes what the whole kernel would with zeros around its centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.tracing.fx_utils import attribute


def smaller_kernels(graph: ComputationalGraph) -> dict[str, tuple[int, ...]]:
    """Return by layer the sizes that its kernel can have, the largest first, without its own.

    Sizes differ from the layer's own by an even number, and the padding suffices for them. Layers
    that are protected, and those that share their weights with another layer, have none.
    """
    found = {}
    for layer, node in graph.layers.items():
        sizes = node.attributes.get("kernel_size")
        if node.operation != "conv" or not sizes or len(set(sizes)) > 1:
            continue
        protected = any(layer == p or layer.startswith(f"{p}.") for p in graph.protected)
        if protected or layer in graph.tied_layers:
            continue
        if fitting := tuple(s for s in range(sizes[0] - 2, 0, -2) if _padded(node, s) is not None):
            found[layer] = fitting
    return found


def shrunk(graph: ComputationalGraph, kernels: Mapping[str, int]) -> ComputationalGraph:
    """Return the graph of the network with these sizes of kernels by layer.

    Raises `UserError` for a layer that it does not have, and a size that a layer cannot have.
    """
    if not kernels:
        return graph
    _check(graph, kernels)
    parameters = dict(graph.parameters)
    for layer, size in kernels.items():
        name = graph.layers[layer].parameters[0]
        shape = parameters[name].shape
        parameters[name] = replace(parameters[name], shape=(*shape[:2], *[size] * len(shape[2:])))
    nodes = tuple(
        _smaller(node, kernels[node.layer]) if node.layer in kernels and node.filters else node
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes, parameters=parameters)


def shrink(traced: fx.GraphModule, graph: ComputationalGraph, kernels: Mapping[str, int]) -> None:
    """Crop kernels of a traced network to these sizes by layer, in place."""
    _check(graph, kernels)
    for layer, size in kernels.items():
        node = graph.layers[layer]
        name = node.parameters[0]
        owner: Any = traced.get_submodule(name.rpartition(".")[0])
        weight = attribute(traced, name)
        owner.weight = nn.Parameter(_centre(weight.detach(), size).clone(), weight.requires_grad)
        owner.kernel_size = (size,) * len(owner.kernel_size)
        owner.padding = _padded(node, size)
        if owner.padding == "same":
            totals = [dilation * (size - 1) for dilation in owner.dilation]
        else:
            totals = [2 * padding for padding in owner.padding]
        ends = [(total // 2, total - total // 2) for total in reversed(totals)]
        owner._reversed_padding_repeated_twice = [end for pair in ends for end in pair]


def rings(
    network: nn.Module, graph: ComputationalGraph, kernels: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """Return by name of a weight where it lies outside the smaller kernel, bool of its shape."""
    found = {}
    for layer, size in kernels.items():
        name = graph.layers[layer].parameters[0]
        outside = torch.ones_like(attribute(network, name), dtype=torch.bool)
        _centre(outside, size).fill_(False)
        found[name] = outside
    return found


def _centre(weight: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of the last axes of a weight, a view."""
    for axis in range(2, weight.ndim):
        weight = weight.narrow(axis, (weight.shape[axis] - size) // 2, size)
    return weight


def _padded(node: Node, size: int) -> tuple[int, ...] | str | None:
    """The padding with which a kernel of another size gives an output of the same size."""
    own, padding = node.attributes["kernel_size"], node.attributes["padding"]
    if isinstance(padding, str):
        return padding if padding == "same" else None
    axes = zip(padding, node.attributes["dilation"], own, strict=True)
    left = [p - d * (k - size) // 2 for p, d, k in axes]
    return None if min(left) < 0 else tuple(left)


def _smaller(node: Node, size: int) -> Node:
    padding = _padded(node, size)
    changed = {
        "kernel_size": [size] * len(node.attributes["kernel_size"]),
        "padding": padding if isinstance(padding, str) else list(padding or ()),
    }
    return replace(node, attributes={**node.attributes, **changed})


def _check(graph: ComputationalGraph, kernels: Mapping[str, int]) -> None:
    known = smaller_kernels(graph) if kernels else {}
    for layer, size in kernels.items():
        if layer not in graph.layers:
            raise UserError(
                f"the plan makes the kernel of layer {layer!r} smaller, which this network does "
                "not have; it is a plan of another network"
            )
        if size not in known.get(layer, ()):
            sizes = ", ".join(map(str, known.get(layer, ()))) or "only its own"
            raise UserError(
                f"the kernel of layer {layer!r} cannot have the size {size}; it can have {sizes}"
            )
