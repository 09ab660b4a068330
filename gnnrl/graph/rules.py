"""One rule for each kind of operation: what it does to channels.

A rule sets `flow.layouts[node]` and, for operations with weights, `flow.layers[node]` and the
axes of the parameters.  An operation that stands in no table is refused, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx, nn

from gnnrl.graph.flow import (
    Flow,
    Folded,
    Layer,
    Layout,
    Weights,
    is_tensor,
    move,
    settle,
    shape_of,
)
from gnnrl.graph.trace import attribute, scope_of

Rule = Callable[[Flow, fx.Node], None]


def tensors_read(node: fx.Node) -> list[fx.Node]:
    """Tensors among the inputs, in order."""
    return [n for n in node.all_input_nodes if is_tensor(n) or isinstance(n.meta["example"], tuple)]


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, however it was passed; nodes that are numbers give their number."""
    value = node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
    return fx.node.map_arg(value, lambda n: n if is_tensor(n) else n.meta["example"])


# --- data ------------------------------------------------------------------------------------


def placeholder(flow: Flow, node: fx.Node) -> None:
    """Colours of the image stay."""
    flow.layouts[node] = None
    if is_tensor(node) and len(shape_of(node)) > 1:
        flow.layouts[node] = Layout(1, flow.couplings.fixed(shape_of(node)[1]))


def output(flow: Flow, node: fx.Node) -> None:
    """What the network answers stays."""
    flow.layouts[node] = None
    for read in node.all_input_nodes:
        flow.pin(read)


def weights(flow: Flow, node: fx.Node) -> None:
    """A parameter in the network's own code: one long axis tells its channels apart."""
    flow.layouts[node] = None
    if not is_tensor(node):
        return
    long = [k for k, size in enumerate(shape_of(node)) if size > 1]
    path = str(node.target)
    if len(long) == 1:
        labels = flow.axes.get((path, long[0]))
        if labels is None:
            labels = flow.couplings.fresh(shape_of(node)[long[0]])
            flow.bind(path, long[0], labels)
        flow.layouts[node] = Layout(long[0], labels)
    elif long:
        flow.layouts[node] = Weights(path)


# --- layers ----------------------------------------------------------------------------------


def contraction(
    flow: Flow,
    node: fx.Node,
    names: tuple[str, str | None],
    axes: tuple[int, int],
    channel_axis: int,
    groups: int,
    positions: int,
) -> None:
    """A convolution or linear layer: every filter reads the channels of its group.

    names: of weight and bias.  axes: of the weight, (inputs, filters).  channel_axis: where the
    channels of input and output lie.  groups: of a convolution.
    """
    weight, bias = names
    read = tensors_read(node)[0]
    size = shape_of(read)[channel_axis]
    before = flow.layout(read)
    if before is not None and before.axis != channel_axis % len(shape_of(read)):
        flow.refuse(node, "it does not read the axis that the channels lie on")
    inputs = before.labels if before is not None else flow.couplings.fixed(size)
    count = shape_of(node)[channel_axis]
    per_group, filters_per_group = size // groups, count // groups
    transposed = axes[0] == 0 and len(flow_shape(flow, weight)) > 2
    filter_axis, filter_count = axes[1], (filters_per_group if transposed else count)
    owner = weight.rpartition(".")[0] or weight
    if weight not in flow.filters:  # a module called twice makes the same filters twice
        flow.filters[weight] = flow.couplings.fresh(count)
    filters = flow.filters[weight]

    whole = groups > 1 and groups >= per_group
    if whole:
        flow.couplings.couple(inputs.reshape(groups, -1), inputs.reshape(groups, -1)[:, :1])
        flow.couplings.couple(filters.reshape(groups, -1), inputs.reshape(groups, -1)[:, :1])
    elif groups > 1:
        flow.couplings.couple(inputs.reshape(groups, -1), inputs.reshape(groups, -1)[:1])
        flow.couplings.couple(filters.reshape(groups, -1), filters.reshape(groups, -1)[:1])
    if not (whole and transposed):
        flow.bind(weight, filter_axis, filters[:filter_count])
    if transposed:
        flow.bind(weight, axes[0], inputs)
    elif not whole:
        flow.bind(weight, axes[0], inputs[:per_group])
    if bias is not None:
        flow.bind(bias, 0, filters)
    layer = str(node.target) if node.op == "call_module" else owner
    if flow.is_protected(layer):
        flow.couplings.pin(filters)
    parameters = (weight,) if bias is None else (weight, bias)
    flow.layers[node] = Layer(layer, filters, parameters, positions, per_group if whole else 0)
    flow.layouts[node] = Layout(channel_axis % len(shape_of(node)), filters)


def flow_shape(flow: Flow, path: str) -> tuple[int, ...]:
    return tuple(attribute(flow.traced, path).shape)


def convolution_module(flow: Flow, node: fx.Node) -> None:
    module = flow.traced.get_submodule(str(node.target))
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    _convolution(flow, node, _names(node, module), module.groups, transposed)


def _convolution(
    flow: Flow, node: fx.Node, names: tuple[str, str | None], groups: int, transposed: bool
) -> None:
    spatial = shape_of(tensors_read(node)[0]) if transposed else shape_of(node)
    axes = (0, 1) if transposed else (1, 0)
    contraction(flow, node, names, axes, 1, groups, math.prod(spatial[2:]))


def linear_module(flow: Flow, node: fx.Node) -> None:
    module = flow.traced.get_submodule(str(node.target))
    _linear(flow, node, _names(node, module))


def _linear(flow: Flow, node: fx.Node, names: tuple[str, str | None]) -> None:
    shape = shape_of(node)
    contraction(flow, node, names, (1, 0), -1, 1, math.prod(shape[1:-1]))


def _names(node: fx.Node, module: nn.Module) -> tuple[str, str | None]:
    return f"{node.target}.weight", f"{node.target}.bias" if module.bias is not None else None


def _function_names(flow: Flow, node: fx.Node) -> tuple[str, str | None]:
    weight, bias = argument(node, 1, "weight"), argument(node, 2, "bias")
    for value in (weight, bias):
        if isinstance(value, fx.Node) and value.op != "get_attr":
            flow.refuse(node, "its weight is computed, not a parameter")
    return str(weight.target), None if bias is None else str(bias.target)


def convolution_function(flow: Flow, node: fx.Node) -> None:
    name = node.target.__name__
    transposed = "transpose" in name
    groups = argument(node, 6, "groups", 1)
    _convolution(flow, node, _function_names(flow, node), groups, transposed)


def linear_function(flow: Flow, node: fx.Node) -> None:
    _linear(flow, node, _function_names(flow, node))


# --- normalisation ---------------------------------------------------------------------------


def normalisation(
    flow: Flow, node: fx.Node, parameters: tuple[str, ...], first_axis: int, groups: int = 0
) -> None:
    """Per-channel scale, shift and statistics.

    first_axis: axis of the tensor that axis 0 of the parameters stands for.  groups: of a group
    normalisation, whose channels are cut together (like those of a grouped convolution).
    """
    read = tensors_read(node)[0]
    layout = flow.layout(read)
    flow.layouts[node] = layout
    if layout is None:
        return
    if groups:
        labels = layout.labels.reshape(groups, -1)
        whole = groups >= labels.shape[1]
        flow.couplings.couple(labels, labels[:, :1] if whole else labels[:1])
        per_group = labels.shape[1] if whole else 0
    else:
        per_group = 0
    axis = layout.axis - first_axis
    for name in parameters:
        if 0 <= axis < len(flow_shape(flow, name)):
            flow.bind(name, axis, layout.labels)
    layer = str(node.target) if node.op == "call_module" else scope_of(node)
    if flow.is_protected(layer):
        flow.couplings.pin(layout.labels)
    flow.layers[node] = Layer(layer, None, parameters, per_group=per_group)


def norm_module(flow: Flow, node: fx.Node) -> None:
    module = flow.traced.get_submodule(str(node.target))
    names = [n for n in ("weight", "bias", "running_mean", "running_var") if _has(module, n)]
    parameters = tuple(f"{node.target}.{n}" for n in names)
    if hasattr(module, "normalized_shape"):
        first = len(shape_of(node)) - len(module.normalized_shape)
        normalisation(flow, node, parameters, first)
    else:
        normalisation(flow, node, parameters, 1, getattr(module, "num_groups", 0))


def _has(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is not None


def norm_function(flow: Flow, node: fx.Node) -> None:
    name = node.target.__name__
    read = tensors_read(node)
    parameters = tuple(str(n.target) for n in read[1:] if n.op == "get_attr")
    if len(parameters) != len(read) - 1:
        flow.refuse(node, "its scale or shift is computed, not a parameter")
    if name in ("layer_norm", "rms_norm"):
        shape = argument(node, 1, "normalized_shape")
        normalisation(flow, node, parameters, len(shape_of(node)) - len(shape))
    else:
        groups = argument(node, 1, "num_groups") if name == "group_norm" else 0
        normalisation(flow, node, parameters, 1, groups)


# --- operations without weights --------------------------------------------------------------


def elementwise(flow: Flow, node: fx.Node) -> None:
    """Operands meet channel by channel, so what lies on one axis goes together."""
    dims = len(shape_of(node))
    operands = tensors_read(node)
    found: list[tuple[int, fx.Node, np.ndarray]] = []
    for read in operands:
        layout = flow.layout(read)
        if layout is not None:
            axis = layout.axis - len(shape_of(read)) + dims
            if len(layout.labels) == 1 and shape_of(node)[axis] > 1:
                flow.couplings.pin(layout.labels)  # one channel that every other one needs
            else:
                found.append((axis, read, layout.labels))
    flow.layouts[node] = None
    if not found:
        for read in operands:
            if isinstance(flow.layouts.get(read), Weights):
                flow.layouts[node] = flow.layouts[read]
        return
    axis, _, labels = found[0]
    for other, _, vector in found[1:]:
        if other != axis:
            flow.refuse(node, f"the channels of its inputs lie on axes {axis} and {other}")
        flow.couplings.couple(vector, labels)
    for read in operands:
        mine = axis - dims + len(shape_of(read))
        if isinstance(flow.layouts.get(read), Weights):
            if mine >= 0 and shape_of(read)[mine] > 1:
                flow.bind(flow.layouts[read].path, mine, labels)
        elif flow.layout(read) is None and mine >= 0 and shape_of(read)[mine] > 1:
            flow.couplings.pin(labels)  # meets a tensor that nobody can cut
    flow.layouts[node] = Layout(axis, labels)


def spatial(flow: Flow, node: fx.Node) -> None:
    """Pooling and resizing: every channel by itself."""
    flow.layouts[node] = flow.layout(tensors_read(node)[0])


def across_channels(flow: Flow, node: fx.Node) -> None:
    """Mixes channels without weights: they stay."""
    read = tensors_read(node)[0]
    flow.pin(read)
    flow.layouts[node] = flow.layout(read) if shape_of(read) == shape_of(node) else None


def along_axis(flow: Flow, node: fx.Node) -> None:
    """Softmax and the like: harmless along any axis but that of the channels."""
    read = tensors_read(node)[0]
    layout = flow.layout(read)
    if node.op == "call_module":
        axis = getattr(flow.traced.get_submodule(str(node.target)), "dim", None)
    else:
        axis = argument(node, 1, "dim")
    if layout is None or (axis is not None and axis % len(shape_of(read)) != layout.axis):
        flow.layouts[node] = layout
    else:
        across_channels(flow, node)


def reduction(flow: Flow, node: fx.Node) -> None:
    """Sum, mean and the like over some axes."""
    read = tensors_read(node)[0]
    layout, dims = flow.layout(read), len(shape_of(read))
    over = argument(node, 1, "dim")
    if over is None:
        over = tuple(range(dims))
    over = sorted({k % dims for k in ([over] if isinstance(over, int) else over)})
    if layout is None or layout.axis in over:
        if layout is not None:
            flow.couplings.pin(layout.labels)
        flow.layouts[node] = None
        return
    keepdim = len(shape_of(node)) == dims
    dropped = 0 if keepdim else sum(k < layout.axis for k in over)
    flow.layouts[node] = Layout(layout.axis - dropped, layout.labels)


def movement(flow: Flow, node: fx.Node) -> None:
    """Moves elements of one tensor."""
    read = tensors_read(node)
    if len(read) > 1 and any(n.op != "get_attr" for n in read[1:]):
        flow.refuse(node, "where elements go depends on the data")
    move(flow, node, read[0])


def copying(flow: Flow, node: fx.Node) -> None:
    """The same elements in the same places."""
    read = tensors_read(node)[0]
    if isinstance(flow.layouts.get(read), Folded):
        move(flow, node, read)
    else:
        flow.layouts[node] = flow.layouts.get(read)


def pick(flow: Flow, node: fx.Node) -> None:
    """`x[...]`, of a tensor or of the parts that an operation gave."""
    source, index = node.args
    parts = flow.layouts.get(source)
    if isinstance(parts, tuple):
        part = parts[index]
        flow.layouts[node] = (
            settle(flow, node, part.source, part.positions) if isinstance(part, Folded) else part
        )
    elif is_tensor(source):
        movement(flow, node)
    else:
        flow.layouts[node] = None


def padding(flow: Flow, node: fx.Node) -> None:
    """Zeros (or copies) around an image, or channels of zeros beside the others."""
    read = tensors_read(node)[0]
    layout = flow.layout(read)
    before, after = shape_of(read), shape_of(node)
    if layout is None or before[layout.axis] == after[layout.axis]:
        flow.layouts[node] = layout
        return
    if node.op != "call_module" and argument(node, 3, "value", 0) not in (0, None):
        flow.refuse(node, "it adds channels that are not zero")
    if any(a != b for k, (a, b) in enumerate(zip(before, after, strict=True)) if k != layout.axis):
        flow.refuse(node, "it pads channels and image at once (pad one, then the other)")
    move(flow, node, read)


def prelu(flow: Flow, node: fx.Node) -> None:
    """PReLU: one slope for all channels, or one for each."""
    elementwise(flow, node)
    layout, path = flow.layout(node), f"{node.target}.weight"
    if layout is not None and flow_shape(flow, path)[0] > 1:
        flow.bind(path, 0, layout.labels)
    flow.layers[node] = Layer(str(node.target), None, (path,))


def concatenation(flow: Flow, node: fx.Node) -> None:
    """Channels one after the other, or, along another axis, of all inputs together."""
    parts = list(argument(node, 0, "tensors"))
    dims = len(shape_of(node))
    axis = argument(node, 1, "dim", 0) % dims
    layouts = [flow.layout(part) for part in parts]
    known = [layout for layout in layouts if layout is not None]
    if not known:
        flow.layouts[node] = None
    elif all(layout.axis == axis for layout in known):
        labels = [
            layout.labels if layout is not None else flow.couplings.fixed(shape_of(part)[axis])
            for layout, part in zip(layouts, parts, strict=True)
        ]
        flow.layouts[node] = Layout(axis, np.concatenate(labels))
    else:
        for layout in known[1:]:
            if layout.axis != known[0].axis or len(layout.labels) != len(known[0].labels):
                flow.refuse(node, "the channels of its inputs lie on different axes")
            flow.couplings.couple(layout.labels, known[0].labels)
        if len(known) < len(parts):
            flow.couplings.pin(known[0].labels)
        flow.layouts[node] = known[0]


def refused(why: str) -> Rule:
    def rule(flow: Flow, node: fx.Node) -> None:
        reads = [flow.layouts.get(n) for n in tensors_read(node)]
        if any(isinstance(r, Layout | Folded) for r in reads):
            flow.refuse(node, why)
        flow.layouts[node] = None

    return rule


def opaque(flow: Flow, node: fx.Node) -> None:
    """A protected part: what goes in stays, what comes out stays."""
    for read in tensors_read(node):
        flow.pin(read)
    flow.layouts[node] = None
    parameters = dict(flow.traced.get_submodule(str(node.target)).named_parameters())
    names = tuple(f"{node.target}.{name}" for name in parameters)
    flow.layers[node] = Layer(str(node.target), None, names)
