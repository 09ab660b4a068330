"""Operations that move elements: reshape, permute, slice, pad, shuffle, and whatever else.

They are run on a tensor of positions, which tells where every channel went.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gnnrl.graph.rules.base import gives_tensors
from gnnrl.graph.rules.flow import (
    PRODUCTS,
    Flow,
    Folded,
    Gather,
    Layout,
    Weights,
    WritesInPlace,
    is_tensor,
    shape_of,
)
from gnnrl.graph.rules.reshape_commute import classes_along, commutes, line_of, run
from gnnrl.tracing.fx_utils import module_of, on_images, operation_name


def layout_of(flow: Flow, node: fx.Node) -> Layout | None:
    """Layout of a tensor that an operation reads; None: it carries no channels to cut."""
    if isinstance(flow.layouts.get(node), Folded):
        _unfold(flow, node)
    found = flow.layouts.get(node)
    return found if isinstance(found, Layout) else None


def move(flow: Flow, node: fx.Node, read: fx.Node) -> None:
    """Layout after an operation that moves the elements of `read` and changes none."""
    before = flow.layouts.get(read)
    if isinstance(before, Weights):
        flow.layouts[node] = Weights(before.path, (*before.steps, (node, True)))
        return
    if not isinstance(before, Layout | Folded):
        flow.layouts[node] = None
        return
    if isinstance(before, Layout):
        shape = shape_of(read)
        positions = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).view(shape)
        before = Folded(read, positions)
    after = run(node, {read: before.positions})
    if isinstance(after, Tensor):
        flow.layouts[node] = settle(flow, node, before.source, after)
    else:
        flow.layouts[node] = tuple(Folded(before.source, part) for part in after)


def part_of(flow: Flow, node: fx.Node) -> None:
    """Layout of one of the tensors that an operation gave."""
    args: tuple[Any, ...] = node.args
    source, index = args
    part = flow.layouts[source][index]
    if isinstance(part, Folded):
        part = settle(flow, node, part.source, part.positions)
    flow.layouts[node] = part


def settle(flow: Flow, node: fx.Node, source: fx.Node, positions: Tensor) -> Layout | Folded | None:
    """Find the channel axis of moved elements, if there is one."""
    layout, shape = flow.layouts[source], shape_of(source)
    if not positions.ndim:  # one number, for every channel that it meets
        flow.couplings.pin(layout.labels)
        return None
    if not positions.numel():  # such as the part before the first of no class tokens
        return None
    channel = _channel_of(positions, shape, layout.axis)
    index = _gathered(positions, channel, shape, layout.axis)
    if index is not None:
        flow.gathers[node] = Gather(source, layout.axis, index)
        return Layout(layout.axis, _picked(flow, layout.labels, index))
    if not (channel >= 0).all():
        return Folded(source, positions)
    varying = [k for k in range(channel.ndim) if (channel != channel.narrow(k, 0, 1)).any()]
    if (
        len(varying) <= 1
        and set(varying) <= set(_axes(node, channel.ndim))
        and _reads(node, source)
    ):
        axis = varying[0] if varying else _axis_of_one(layout, shape, tuple(positions.shape))
        line = channel[tuple(slice(None) if k == axis else 0 for k in range(channel.ndim))].numpy()
        if _keeps_order(line, shape[layout.axis]):
            return Layout(axis, layout.labels[line])
    return Folded(source, positions)


def _axes(node: fx.Node, dims: int) -> range:
    """Axes on which channels may lie: not that of the images."""
    return range(1 if on_images(node) else 0, dims)


def _reads(node: fx.Node, source: fx.Node) -> bool:
    """Whether `node` reads `source`, itself or as the parts that it was split into."""
    inputs = node.all_input_nodes
    return source in inputs or any(
        not is_tensor(n) and source in n.all_input_nodes for n in inputs[:1]
    )


def _picked(flow: Flow, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Labels of picked channels; zeros (-1) and copies of an only channel are free to go."""
    picked = np.where(index >= 0, labels[index], -1)
    free = index < 0
    if len(labels) == 1 and len(index) > 1:
        flow.couplings.pin(labels)
        free = np.ones(len(index), dtype=bool)
    picked[free] = flow.couplings.fresh(int(free.sum()))
    return picked


def _unfold(flow: Flow, node: fx.Node) -> None:
    """Settle channels that lie on several axes: couple them, or keep them all."""
    source = flow.layouts[node].source
    layout = flow.layouts[source]
    chain = _chain(flow, node, source)
    for classes in _couplings(flow, node, chain):
        found = _along(flow, chain, source, classes)
        if found:
            first = layout.labels[np.unique(classes, return_index=True)[1]]
            flow.couplings.couple(layout.labels, first[classes])
            for step, axis, line in found:
                flow.layouts[step] = Layout(axis, first[line])
            _again(flow, source)
            return
    flow.couplings.pin(layout.labels)
    flow.layouts[node] = None


def _couplings(flow: Flow, node: fx.Node, chain: list[fx.Node]) -> list[np.ndarray]:
    """Classes of channels that one axis tells apart, the finest first; of attention, whole heads
    or the width of heads first."""
    found: list[np.ndarray] = []
    layout, shape = flow.layouts[flow.layouts[node].source], shape_of(flow.layouts[node].source)
    for step in (node, *chain[:1]):
        channel = _channel_of(flow.layouts[step].positions, shape, layout.axis).numpy()
        axes = [k for k in _axes(step, channel.ndim) if channel.shape[k] > 1]
        if (channel >= 0).all():
            found += [classes_along(channel, k, len(layout.labels)) for k in axes]
    found = [classes for classes in found if classes.max() > 0]
    if flow.multiplies and _meets_product(node):  # heads lie in longer blocks than their widths
        sign = 1 if flow.attention == "heads" else -1
        return sorted(found, key=lambda classes: sign * np.count_nonzero(np.diff(classes)))
    return sorted(found, key=lambda classes: -int(classes.max()))


def _meets_product(node: fx.Node) -> bool:
    """Whether a tensor meets another one in a product before it meets weights."""
    seen, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().users:
            name = operation_name(user)
            if name in PRODUCTS:
                return True
            if user not in seen and not name.lower().startswith(("conv", "linear")):
                seen.add(user)
                waiting.append(user)
    return False


def _again(flow: Flow, source: fx.Node) -> None:
    """Repeat the rules of all that moved channels of `source`, now that some are settled."""
    for node in flow.traced.graph.nodes:
        found = flow.layouts.get(node)
        parts = found if isinstance(found, tuple) else (found,)
        if not any(isinstance(part, Folded) and part.source is source for part in parts):
            continue
        read = next(n for n in node.all_input_nodes if flow.layouts.get(n) is not None)
        if isinstance(flow.layouts[read], tuple):
            part_of(flow, node)
        else:
            move(flow, node, read)


def _tensor_read(node: fx.Node) -> fx.Node | None:
    """The tensor whose elements an operation moves, or out of whose parts it takes one."""
    for read in node.all_input_nodes:
        if is_tensor(read):
            return read
        if gives_tensors(read):
            return _tensor_read(read)
    return None


def _chain(flow: Flow, node: fx.Node, source: fx.Node) -> list[fx.Node]:
    """Operations from `source` (left out) to `node`, if each reads the one before."""
    chain = [node]
    while (before := _tensor_read(chain[-1])) is not source:
        if before is None or not isinstance(flow.layouts.get(before), Folded):
            return []
        chain.append(before)
    return chain[::-1]


def _along(
    flow: Flow, chain: list[fx.Node], source: fx.Node, classes: np.ndarray
) -> list[tuple[fx.Node, int, np.ndarray]]:
    """(operation, axis, class of each index) of each step, if in each the classes lie on one
    axis and cutting them commutes with it; else nothing."""
    found: list[tuple[fx.Node, int, np.ndarray]] = []
    read, before = source, (flow.layouts[source].axis, classes)
    for step in chain:
        positions, shape = flow.layouts[step].positions, shape_of(source)
        spread = classes[_channel_of(positions, shape, flow.layouts[source].axis).numpy()]
        lines = ((k, line_of(spread, k)) for k in _axes(step, spread.ndim))
        after = next(((k, line) for k, line in lines if line is not None), None)
        if after is None or not commutes(step, read, before, after):
            return []
        found.append((step, *after))
        read, before = step, after
    return found if found and len(np.unique(found[-1][2])) > 1 else []


def _axis_of_one(layout: Layout, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Where the axis of a single channel went; any axis of length one tells no channels apart."""
    if len(before) == len(after) and after[layout.axis] == 1:
        return layout.axis
    return next((k for k in range(1, len(after)) if after[k] == 1), len(after) - 1)


def varies(folded: Folded, layout: Layout, axis: int) -> bool:
    """Whether the elements along an axis came from different channels."""
    channel = _channel_of(folded.positions, shape_of(folded.source), layout.axis)
    return bool((channel != channel.narrow(axis, 0, 1)).any())


def _channel_of(positions: Tensor, shape: tuple[int, ...], axis: int) -> Tensor:
    """Channel of the source that each element came from, -1 for padding."""
    inner = math.prod(shape[axis + 1 :])
    channel = ((positions.long() - 1) // inner) % shape[axis]
    return torch.where(positions == 0, -1, channel)


def _gathered(
    positions: Tensor, channel: Tensor, shape: tuple[int, ...], axis: int
) -> np.ndarray | None:
    """Channels picked, if that is all that happened to the source."""
    after = tuple(positions.shape)
    if len(after) != len(shape) or any(
        a != b for k, (a, b) in enumerate(zip(after, shape, strict=True)) if k != axis
    ):
        return None
    index = channel[tuple(slice(None) if k == axis else 0 for k in range(len(shape)))]
    original = torch.arange(1, math.prod(shape) + 1, dtype=positions.dtype).view(shape)
    expected = original.index_select(axis, index.clamp(min=0))
    present = (index >= 0).view([-1 if k == axis else 1 for k in range(len(shape))])
    return index.numpy() if torch.equal(expected * present, positions) else None


def _keeps_order(index: np.ndarray, count: int) -> bool:
    """Every channel is there, in order, repeated in blocks or as a whole; then cutting commutes
    with the operation."""
    if len(index) % count:
        return False
    inner = int(np.argmax(index != index[0])) if (index != index[0]).any() else len(index)
    return len(index) % (inner * count) == 0 and bool(
        (index.reshape(-1, count, inner) == np.arange(count)[None, :, None]).all()
    )


def meet(flow: Flow, read: fx.Node, axis: int, labels: np.ndarray) -> bool:
    """A tensor meets channels `labels` on its axis `axis`: its own are kept or removed with them,
    or else all are kept; whether it is the former."""
    found = layout_of(flow, read)
    weights = flow.layouts.get(read)
    if found is None and isinstance(weights, Weights):
        found = _settled(flow, weights, axis, len(labels))
    if found is not None and found.axis == axis and len(found.labels) == len(labels):
        flow.couplings.couple(found.labels, labels)
        return True
    flow.couplings.pin(labels)
    flow.pin(read)
    return False


def _settled(flow: Flow, weights: Weights, axis: int, length: int) -> Layout | None:
    """Layout of a parameter whose elements were moved: the one of its axes that became `axis`."""
    (first, _), *steps = weights.steps
    last, known = weights.steps[-1][0], dict(flow.gathers)
    for own, size in enumerate(shape_of(first)):
        labels = flow.couplings.fresh(size)
        flow.layouts[first] = Layout(own, labels)
        for step, moves in steps:
            read = next(n for n in step.all_input_nodes if flow.layouts.get(n) is not None)
            if moves:
                move(flow, step, read)
            else:
                flow.layouts[step] = flow.layouts[read]
        found = layout_of(flow, last)
        if found is not None and found.axis == axis and len(found.labels) == length:
            flow.bind(weights.path, own, labels)
            if not steps:  # its other readers may meet other axes of it
                flow.layouts[first] = weights
            return found
        flow.gathers = dict(known)
    flow.layouts |= dict.fromkeys((step for step, _ in weights.steps), None)
    return None


def refuse_shared_writing(flow: Flow, node: fx.Node) -> None:
    """An operation in place must be seen by all that read what it wrote, in the cut network too:
    not where surgery copies channels, nor where its result is dropped."""
    read = next((n for n in node.all_input_nodes if is_tensor(n)), None)
    if read is None or not _writes(node):
        return
    name = repr(operation_name(node))
    if not node.users:
        raise WritesInPlace(node, f"{name}: it writes in place and its result is not used")
    if read in flow.gathers and any(node < user for user in flow.gathers[read].source.users):
        raise WritesInPlace(node, f"{name}: it writes into a tensor that is read again later")


def _writes(node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(module_of(node), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in _IN_PLACE or node.kwargs.get("inplace") is True


_IN_PLACE = {"iadd", "isub", "imul", "itruediv", "ipow"}
