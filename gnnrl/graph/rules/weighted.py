"""Rules for operations with weights: convolution, linear, normalisation, PReLU."""

from __future__ import annotations

import math

import numpy as np
from torch import fx, nn

from gnnrl.graph.rules.base import argument, tensors_read
from gnnrl.graph.rules.flow import Flow, Layer, Layout, shape_of
from gnnrl.graph.rules.reshape import layout_of
from gnnrl.graph.rules.unweighted import elementwise
from gnnrl.tracing.fx_utils import attribute, module_of, operation_name, scope_of

Names = tuple[str, str | None]
"""Of weight and bias in `state_dict`."""


def contraction(
    flow: Flow,
    node: fx.Node,
    names: Names,
    channel_axis: int,
    positions: int,
    groups: int = 1,
    transposed: bool = False,
) -> None:
    """A convolution or linear layer: every filter reads the channels of its group.

    channel_axis: where the channels of input and output lie.  positions: where the weight is
    applied in one image.  transposed: the weight is `[inputs, filters / groups, …]`.
    """
    weight, bias = names
    read = tensors_read(node)[0]
    size, count = shape_of(read)[channel_axis], shape_of(node)[channel_axis]
    before = layout_of(flow, read)
    if before is not None and before.axis != channel_axis % len(shape_of(read)):
        flow.couplings.pin(before.labels)  # it works along another axis than that of the channels
        before = None
    inputs = before.labels if before is not None else flow.couplings.fixed(size)
    if weight not in flow.filters:  # a module called twice makes the same filters twice
        flow.filters[weight] = flow.couplings.fresh(count)
    filters = flow.filters[weight]
    whole = groups > 1 and groups >= size // groups
    if groups > 1:
        _couple_groups(flow, inputs.reshape(groups, -1), filters.reshape(groups, -1), whole)
    if transposed:
        flow.bind(weight, 0, inputs)
        if not whole:
            flow.bind(weight, 1, filters[: count // groups])
    else:
        flow.bind(weight, 0, filters)
        if not whole:
            flow.bind(weight, 1, inputs[: size // groups])
    if bias is not None:
        flow.bind(bias, 0, filters)
    layer = str(node.target) if node.op == "call_module" else flow.layer_of(weight)
    if flow.is_protected(layer):
        flow.couplings.pin(filters)
    parameters = (weight,) if bias is None else (weight, bias)
    per_group = size // groups if whole else 0
    flow.layers[node] = Layer(layer, filters, parameters, positions, per_group)
    flow.layouts[node] = Layout(channel_axis % len(shape_of(node)), filters)


def _couple_groups(flow: Flow, inputs: np.ndarray, filters: np.ndarray, whole: bool) -> None:
    """inputs, filters `[groups, channels of one]`.  whole: groups go as a whole; else the same
    channels go in every group."""
    if whole:
        flow.couplings.couple(inputs, inputs[:, :1])
        flow.couplings.couple(filters, inputs[:, :1])
    else:
        flow.couplings.couple(inputs, inputs[:1])
        flow.couplings.couple(filters, filters[:1])


def convolution_module(flow: Flow, node: fx.Node) -> None:
    """A convolution that is a module."""
    module = module_of(node)
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    _convolution(flow, node, _names(flow, node, module), module.groups, transposed)


def convolution_function(flow: Flow, node: fx.Node) -> None:
    """A convolution that is called as a function."""
    transposed = "transpose" in operation_name(node)
    groups = argument(node, 6, "groups", 1)
    _convolution(flow, node, _function_names(flow, node), groups, transposed)


def _convolution(flow: Flow, node: fx.Node, names: Names, groups: int, transposed: bool) -> None:
    images, _, *spatial = shape_of(tensors_read(node)[0]) if transposed else shape_of(node)
    positions = flow.per_image(node, images * math.prod(spatial))
    contraction(flow, node, names, 1, positions, groups, transposed)


def embedding(flow: Flow, node: fx.Node) -> None:
    """A table of vectors, one for each token: it shrinks with what its vectors are added to."""
    path, made = flow.one_name(f"{node.target}.weight"), shape_of(node)
    labels = flow.axes.get((path, 1))
    if labels is None:
        labels = flow.couplings.fresh(made[-1])
        flow.bind(path, 1, labels)
    if flow.is_protected(str(node.target)) or module_of(node).max_norm is not None:
        flow.couplings.pin(labels)
    flow.layers[node] = Layer(str(node.target), None, (path,))
    flow.layouts[node] = Layout(len(made) - 1, labels)


def linear_module(flow: Flow, node: fx.Node) -> None:
    """A linear layer that is a module."""
    _linear(flow, node, _names(flow, node, module_of(node)))


def linear_function(flow: Flow, node: fx.Node) -> None:
    """A linear layer that is called as a function."""
    _linear(flow, node, _function_names(flow, node))


def _linear(flow: Flow, node: fx.Node, names: Names) -> None:
    positions = flow.per_image(node, math.prod(shape_of(node)[:-1]))
    contraction(flow, node, names, -1, positions)


def _names(flow: Flow, node: fx.Node, module: nn.Module) -> Names:
    bias = flow.one_name(f"{node.target}.bias") if module.bias is not None else None
    return flow.one_name(f"{node.target}.weight"), bias


def _function_names(flow: Flow, node: fx.Node) -> Names:
    weight, bias = argument(node, 1, "weight"), argument(node, 2, "bias")
    for value in (weight, bias):
        if isinstance(value, fx.Node) and value.op != "get_attr":
            flow.refuse(node, "its weight is computed, not a parameter")
    return flow.one_name(str(weight.target)), (
        None if bias is None else flow.one_name(str(bias.target))
    )


def normalisation(
    flow: Flow, node: fx.Node, parameters: tuple[str, ...], first_axis: int, groups: int = 0
) -> None:
    """Per-channel scale, shift and statistics.

    first_axis: axis of the tensor that axis 0 of the parameters stands for; negative for one that
    normalises over the last axes, as a layer normalisation does.  groups: of a group
    normalisation, whose channels are cut together (like those of a grouped convolution).
    """
    read = tensors_read(node)[0]
    layout = layout_of(flow, read)
    flow.layouts[node] = layout
    layer = str(node.target) if node.op == "call_module" else scope_of(node)
    if layout is None:
        flow.layers[node] = Layer(layer, None, parameters)
        return
    per_group = 0
    if first_axis > 0 and layout.axis != first_axis:
        flow.couplings.pin(layout.labels)  # its statistics are not those of single channels
    elif groups:
        labels = layout.labels.reshape(groups, -1)
        whole = groups >= labels.shape[1]
        flow.couplings.couple(labels, labels[:, :1] if whole else labels[:1])
        per_group = labels.shape[1] if whole else 0
    last_axes = first_axis < 0
    first_axis %= len(shape_of(node))
    if last_axes and layout.axis >= first_axis and flow.multiplies and not flow.embedding:
        flow.couplings.pin(layout.labels)  # the width of a transformer
    for name in parameters:
        if 0 <= layout.axis - first_axis < len(flow_shape(flow, name)):
            flow.bind(name, layout.axis - first_axis, layout.labels)
    if flow.is_protected(layer):
        flow.couplings.pin(layout.labels)
    axis = layout.axis - first_axis if last_axes and layout.axis >= first_axis else None
    flow.layers[node] = Layer(layer, None, parameters, per_group=per_group, axis=axis)


def flow_shape(flow: Flow, path: str) -> tuple[int, ...]:
    """Shape of a parameter or buffer."""
    return tuple(attribute(flow.traced, path).shape)


def norm_module(flow: Flow, node: fx.Node) -> None:
    """A normalisation that is a module."""
    module = module_of(node)
    names = ("weight", "bias", "running_mean", "running_var")
    parameters = tuple(
        flow.one_name(f"{node.target}.{n}") for n in names if getattr(module, n, None) is not None
    )
    if hasattr(module, "normalized_shape"):
        normalisation(flow, node, parameters, -len(module.normalized_shape))
    else:
        normalisation(flow, node, parameters, 1, getattr(module, "num_groups", 0))


def norm_function(flow: Flow, node: fx.Node) -> None:
    """A normalisation that is called as a function."""
    name = operation_name(node)
    read = tensors_read(node)
    parameters = tuple(flow.one_name(str(n.target)) for n in read[1:] if n.op == "get_attr")
    if len(parameters) != len(read) - 1:
        flow.refuse(node, "its scale or shift is computed, not a parameter")
    if name in ("layer_norm", "rms_norm"):
        normalisation(flow, node, parameters, -len(argument(node, 1, "normalized_shape")))
    else:
        groups = argument(node, 1, "num_groups") if name == "group_norm" else 0
        normalisation(flow, node, parameters, 1, groups)


def prelu(flow: Flow, node: fx.Node) -> None:
    """PReLU: one slope for all channels, or one for each."""
    elementwise(flow, node)
    layout, path = layout_of(flow, node), flow.one_name(f"{node.target}.weight")
    if layout is not None and flow_shape(flow, path)[0] > 1:
        if layout.axis == 1:
            flow.bind(path, 0, layout.labels)
        else:
            flow.couplings.pin(layout.labels)
    flow.layers[node] = Layer(str(node.target), None, (path,))
