"""Layers as linear maps of what they read: the view that weight compensation needs.

A reader is a convolution or linear layer (without groups) together with the batch norm behind it,
folded into one affine map, and the addition behind that, where its result is used.
"""

# n: images   P: positions of an image   I: input channels   K: taps of the kernel   O: filters
# D = I * K + 1: inputs of the map, the last one a constant 1

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from gnnrl.graph.extract import Analysis
from gnnrl.graph.rules.base import tensors_read
from gnnrl.graph.rules.flow import Layout, shape_of
from gnnrl.tracing.fx_utils import only_user, operation_name


@dataclass(frozen=True)
class Reader:
    """layer: its dotted name, as the node of the traced network that reads it is `node`.
    source: the node it reads.  norm: the batch norm that follows, or empty.
    end: the node whose values the compensated map should reproduce: the layer's own, the norm's,
    or the sum with `other`.  rectified: only the positive part of `end` is used.
    units `[I]`: unit of each input channel, -1: fixed."""

    node: str
    layer: str
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


def readers(analysis: Analysis) -> list[Reader]:
    """The layers of a network that can be refitted, in order of execution."""
    traced, order = analysis.traced, {n: i for i, n in enumerate(analysis.traced.graph.nodes)}
    found = []
    for node in order:
        layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        once = layer is not None and _calls(traced, node) == 1
        if once and isinstance(layer, nn.Conv2d | nn.Linear) and _plain(layer, node):
            found.append(_reader(analysis, order, node, layer))
    return found


def _plain(layer: nn.Conv2d | nn.Linear, node: fx.Node) -> bool:
    """Whether it reads all its inputs at once, at places that are known."""
    if isinstance(layer, nn.Linear):
        return len(shape_of(node)) == 2
    zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return layer.groups == 1 and zeros


def _calls(traced: fx.GraphModule, node: fx.Node) -> int:
    return sum(n.op == "call_module" and n.target == node.target for n in traced.graph.nodes)


def _reader(
    analysis: Analysis, order: dict[fx.Node, int], node: fx.Node, layer: nn.Conv2d | nn.Linear
) -> Reader:
    traced, source = analysis.traced, tensors_read(node)[0]
    end, norm, other = node, "", ""
    following = only_user(end)
    if following is not None and following.op == "call_module":
        module = traced.get_submodule(str(following.target))
        if isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
            end, norm = following, str(following.target)
    following = only_user(end)
    if following is not None and operation_name(following) in ("add", "iadd"):
        others = [n for n in tensors_read(following) if n is not end]
        if len(others) == 1 and order[others[0]] < order[node]:
            if shape_of(others[0]) == shape_of(end) and len(following.args) == 2:
                end, other = following, others[0].name
    users = list(end.users)
    layout = analysis.flow.layouts.get(source)
    units = torch.full((layer.weight.shape[1],), -1)
    if isinstance(layout, Layout):
        units = torch.from_numpy(analysis.units.of(layout.labels))
    window: dict[str, Any] = {}
    if isinstance(layer, nn.Conv2d):
        window = {"kernel": layer.kernel_size, "stride": layer.stride}
        window |= {"padding": layer.padding, "dilation": layer.dilation}
    return Reader(
        node=node.name,
        layer=str(node.target),
        source=source.name,
        norm=norm,
        end=end.name,
        other=other,
        rectified=bool(users) and all(_is_relu(traced, user) for user in users),
        units=units,
        **window,
    )


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    return operation_name(node) in ("relu", "relu_")


def positions(shape: torch.Size, count: int, generator: torch.Generator) -> Tensor:
    """Draw places of the output `[n, C, H, W]` of a layer, flat, `[n, P]`, P at most `count`."""
    places = math.prod(shape[2:])
    if places <= count:
        return torch.arange(places).repeat(shape[0], 1)
    return torch.randint(places, (shape[0], count), generator=generator)


def rows(x: Tensor, reader: Reader, places: Tensor, width: int) -> Tensor:
    """Return what a layer reads at some places: `[n * P, D]`, channel by channel, tap by tap.

    x: its input `[n, I, H, W]` or `[n, I]`.  places `[n, P]`: flat positions of its output, which
    is `width` wide.
    """
    if x.ndim == 2:
        return torch.cat([x, x.new_ones(len(x), 1)], 1)
    (ph, pw), (sh, sw), (dh, dw) = reader.padding, reader.stride, reader.dilation
    padded = F.pad(x, (pw, pw, ph, ph)).permute(0, 2, 3, 1).contiguous()
    n, height, across, channels = padded.shape
    places = places.to(x.device)
    base = (torch.arange(n, device=x.device).view(-1, 1) * height + places // width * sh) * across
    base = (base + places % width * sw).view(-1, 1)
    high, wide = reader.kernel
    offsets = [a * dh * across + b * dw for a in range(high) for b in range(wide)]
    taps = torch.tensor(offsets, device=x.device)
    picked = padded.view(-1, channels).index_select(0, (base + taps).view(-1))
    picked = picked.view(-1, len(taps), channels).transpose(1, 2).reshape(len(base), -1)
    return torch.cat([picked, picked.new_ones(len(picked), 1)], 1)


def values(y: Tensor, places: Tensor) -> Tensor:
    """Return the outputs `[n, O, H, W]` or `[n, O]` of a layer at these places, `[n * P, O]`."""
    if y.ndim == 2:
        return y
    flat, places = y.flatten(2).transpose(1, 2), places.to(y.device)
    return flat.gather(1, places.unsqueeze(-1).expand(-1, -1, y.shape[1])).reshape(-1, y.shape[1])


def folded(network: nn.Module, reader: Reader) -> Tensor:
    """Return the affine map of layer and norm `[D, O]`: weights, then the constant."""
    layer: Any = network.get_submodule(reader.layer)
    weight = layer.weight.detach().flatten(1)
    constant = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    if reader.norm:
        norm: Any = network.get_submodule(reader.norm)
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight = weight * scale[:, None]
        constant = (constant - norm.running_mean) * scale + norm.bias.detach()
    return torch.cat([weight, constant[:, None]], 1).t()


def rewrite(
    network: nn.Module, reader: Reader, solution: Tensor, moments: tuple[Tensor, Tensor]
) -> None:
    """Give layer and norm the affine map `solution` `[D, O]`, in place.

    moments: mean and variance `[O]` of what the layer will give before its norm without a
    constant: the norm then has the statistics that it would measure, and can be trained.
    """
    layer: Any = network.get_submodule(reader.layer)
    weight, constant = solution[:-1].t().reshape(layer.weight.shape), solution[-1]
    with torch.no_grad():
        layer.weight.copy_(weight)
        if reader.norm:
            norm: Any = network.get_submodule(reader.norm)
            mean, variance = moments
            norm.weight.copy_(torch.sqrt(variance + norm.eps))
            norm.bias.copy_(constant + mean)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            if layer.bias is not None:
                layer.bias.zero_()
        elif layer.bias is not None:
            layer.bias.copy_(constant)
