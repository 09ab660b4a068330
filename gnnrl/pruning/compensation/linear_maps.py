"""Layers as linear maps of what they read: the view that weight compensation needs.

A reader is a convolution (without groups) or a linear layer together with the batch norm behind it,
folded into one affine map, and the addition behind that, where its result is used.  A linear layer
may be a module or a weight that a network's own code applies, as attention does; its samples are
the tokens it reads.
"""

# n: images   P: places of an image (pixels, tokens)   I: input channels   K: taps of the kernel
# O: filters   D = I * K + 1: inputs of the map, the last one a constant 1

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gnnrl.graph.extract import Analysis
from gnnrl.graph.rules.base import tensors_read
from gnnrl.graph.rules.flow import Layer, Layout, is_tensor, shape_of
from gnnrl.graph.rules.table import look_up
from gnnrl.tracing.fx_utils import attribute, on_images, only_user, operation_name


@dataclass(frozen=True)
class Reader:
    """layer: its name in the graph, as the node of the traced network that reads it is `node`.
    weight, bias: names of its parameters; bias empty: none.  linear: its channels lie on the last
    axis.  source: the node it reads.  norm: the batch norm that follows, or empty.
    end: the node whose values the compensated map should reproduce: the layer's own, the norm's,
    or the sum with `other`.  rectified: only the positive part of `end` is used.
    units `[I]`: unit of each input channel, -1: fixed."""

    node: str
    layer: str
    weight: str
    bias: str
    linear: bool
    source: str
    norm: str
    end: str
    other: str
    rectified: bool
    units: Tensor
    kernel: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def has_constant(self) -> bool:
        """Whether layer or norm can add a constant to each filter's output."""
        return bool(self.norm or self.bias)


def readers(analysis: Analysis) -> list[Reader]:
    """The layers of a network that can be refitted, in order of execution."""
    traced, order = analysis.traced, {n: i for i, n in enumerate(analysis.traced.graph.nodes)}
    calls: dict[str, int] = {}
    for called in analysis.flow.layers.values():
        if called.parameters:
            calls[called.parameters[0]] = calls.get(called.parameters[0], 0) + 1
    found = []
    for node in order:
        layer = analysis.flow.layers.get(node)
        if layer is None or layer.filters is None or calls[layer.parameters[0]] > 1:
            continue
        if _is_linear(node) or _is_plain_convolution(traced, node):
            found.append(_reader(analysis, order, node, layer))
    return found


def _is_linear(node: fx.Node) -> bool:
    """Whether it is a linear layer whose tokens follow the images."""
    return look_up(node)[0] == "linear" and len(shape_of(node)) > 1 and on_images(node)


def _is_plain_convolution(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it reads all its inputs at once, at places that are known."""
    layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(layer, nn.Conv2d):
        return False
    zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return layer.groups == 1 and zeros


def _reader(analysis: Analysis, order: dict[fx.Node, int], node: fx.Node, layer: Layer) -> Reader:
    traced, source = analysis.traced, tensors_read(node)[0]
    end, norm, other = node, "", ""
    following = only_user(end)
    if following is not None and following.op == "call_module":
        module = traced.get_submodule(str(following.target))
        if isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
            end, norm = following, str(following.target)
    last = _behind_dropout(end)
    following = only_user(last)
    if following is not None and operation_name(following) in ("add", "iadd"):
        others = [n for n in tensors_read(following) if n is not last]
        if len(others) == 1 and order[others[0]] < order[node]:
            if shape_of(others[0]) == shape_of(end) and len(following.args) == 2:
                end, other = following, others[0].name
    users = list(end.users)
    layout = analysis.flow.layouts.get(source)
    weight = attribute(traced, layer.parameters[0])
    units = torch.full((weight.shape[1],), -1)
    if isinstance(layout, Layout):
        units = torch.from_numpy(analysis.units.of(layout.labels))
    window: dict[str, Any] = {}
    own = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(own, nn.Conv2d):
        window = {"kernel": own.kernel_size, "stride": own.stride}
        window |= {"padding": own.padding, "dilation": own.dilation}
    return Reader(
        node=node.name,
        layer=layer.name,
        weight=layer.parameters[0],
        bias=layer.parameters[1] if len(layer.parameters) > 1 else "",
        linear=not window,
        source=source.name,
        norm=norm,
        end=end.name,
        other=other,
        rectified=bool(users) and all(_is_relu(traced, user) for user in users),
        units=units,
        **window,
    )


def _behind_dropout(node: fx.Node) -> fx.Node:
    """The last of the operations after a node that hand on its values in evaluation mode."""
    following = only_user(node)
    while following is not None and _hands_on(following):
        node, following = following, only_user(following)
    return node


def _hands_on(node: fx.Node) -> bool:
    return is_tensor(node) and (
        look_up(node)[0] == "identity" or "dropout" in operation_name(node).lower()
    )


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    return operation_name(node) in ("relu", "relu_")


def inner_nodes(nodes: dict[str, fx.Node], reader: Reader) -> Iterator[fx.Node]:
    """The operations from a layer to the one before its end, in a network that has both."""
    node = nodes[reader.node]
    while node.name != reader.end:
        yield node
        node = next(iter(node.users))


def folded(network: nn.Module, reader: Reader) -> Tensor:
    """Return the affine map of layer and norm `[D, O]`: weights, then the constant."""
    weight = attribute(network, reader.weight).detach().flatten(1)
    constant = weight.new_zeros(len(weight))
    if reader.bias:
        constant = attribute(network, reader.bias).detach()
    if reader.norm:
        norm: Any = network.get_submodule(reader.norm)
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight = weight * scale[:, None]
        constant = (constant - norm.running_mean) * scale + norm.bias.detach()
    return torch.cat([weight, constant[:, None]], 1).t()


def rewrite(
    network: nn.Module, reader: Reader, solution: Tensor, moments: tuple[Tensor, Tensor]
) -> None:
    """Give layer and norm the affine map `solution` `[D, O]`, with tensors of their own.

    Without its last row where the layer has no constant.  moments: mean and variance `[O]` of what
    the layer will give before its norm without a constant: the norm then has the statistics that
    it would measure, and can be trained.
    """
    weights = solution[:-1] if reader.has_constant else solution
    like = attribute(network, reader.weight)
    weight = weights.t().reshape(like.shape).to(like)
    if weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    _put(network, reader.weight, weight)
    if not reader.has_constant:
        return
    constant = solution[-1].to(like)
    if reader.norm:
        norm: Any = network.get_submodule(reader.norm)
        mean, variance = moments
        _put(network, f"{reader.norm}.weight", torch.sqrt(variance + norm.eps).to(like))
        _put(network, f"{reader.norm}.bias", constant + mean.to(like))
        _put(network, f"{reader.norm}.running_mean", mean.to(like))
        _put(network, f"{reader.norm}.running_var", variance.to(like))
        constant = torch.zeros_like(constant)
    if reader.bias:
        _put(network, reader.bias, constant)


def _put(network: nn.Module, path: str, value: Tensor) -> None:
    """Replace a parameter or buffer."""
    parent, _, name = path.rpartition(".")
    owner = network.get_submodule(parent)
    if name in owner._buffers:
        owner._buffers[name] = value
        return
    before = owner._parameters[name]
    owner._parameters[name] = nn.Parameter(value, before is not None and before.requires_grad)
