"""Rules for operations without weights: elementwise, pooling, reductions, joining, moving."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from torch import fx

from gnnrl.graph.rules.base import argument, tensors_read
from gnnrl.graph.rules.flow import (
    Flow,
    Folded,
    Layout,
    Weights,
    WritesInPlace,
    is_tensor,
    shape_of,
)
from gnnrl.graph.rules.reshape import layout_of, meet, move, part_of
from gnnrl.tracing.fx_utils import module_of, on_images, operation_name


def elementwise(flow: Flow, node: fx.Node) -> None:
    """Operands meet channel by channel, so what lies on one axis is coupled."""
    dims, operands = len(shape_of(node)), tensors_read(node)
    found = _meeting(flow, node)
    if not found:
        lone = flow.layouts.get(operands[0]) if len(operands) == 1 else None
        flow.layouts[node] = None
        if isinstance(lone, Weights):
            flow.layouts[node] = Weights(lone.path, (*lone.steps, (node, False)))
        return
    # data tells the axis before a parameter does
    main = min(found, key=lambda read: (read.op == "get_attr", operands.index(read)))
    axis, labels = found[main]
    for read in operands:
        mine = axis - dims + len(shape_of(read))
        met = mine >= 0 and shape_of(read)[mine] > 1
        if read in found and found[read][0] == axis:
            flow.couplings.couple(found[read][1], labels)
        elif met:
            meet(flow, read, mine, labels)
        elif read in found:
            flow.couplings.pin(found[read][1])
    flow.layouts[node] = Layout(axis, labels)


def converted(flow: Flow, node: fx.Node) -> None:
    """Another type of numbers, that of another tensor too: nothing meets that tensor's channels."""
    read = tensors_read(node)[0]
    found = flow.layouts.get(read)
    if isinstance(found, Weights):
        flow.layouts[node] = Weights(found.path, (*found.steps, (node, False)))
    else:
        flow.layouts[node] = layout_of(flow, read)


def _meeting(flow: Flow, node: fx.Node) -> dict[fx.Node, tuple[int, np.ndarray]]:
    """Operands with channels: the axis of the result on which they lie, and their labels."""
    shape = shape_of(node)
    found: dict[fx.Node, tuple[int, np.ndarray]] = {}
    for read in tensors_read(node):
        layout = layout_of(flow, read)
        if layout is None:
            continue
        axis = layout.axis - len(shape_of(read)) + len(shape)
        if len(layout.labels) == 1 and shape[axis] > 1:
            flow.couplings.pin(layout.labels)  # one channel that every other one needs
        else:
            found[read] = (axis, layout.labels)
    return found


def spatial(flow: Flow, node: fx.Node) -> None:
    """Pooling and resizing: every channel by itself."""
    read = tensors_read(node)[0]
    layout, shape = layout_of(flow, read), shape_of(read)
    named = re.search(r"([123])d", operation_name(node))
    over = int(named.group(1)) if named else len(shape) - 2
    if layout is not None and (layout.axis != 1 or len(shape) != over + 2):
        flow.couplings.pin(layout.labels)  # it works along the channels
        layout = None
    flow.layouts[node] = layout


def sampling(flow: Flow, node: fx.Node) -> None:
    """Pixels of a feature map at places that another tensor names (`grid_sample`)."""
    _, places = tensors_read(node)
    flow.pin(places)
    spatial(flow, node)


def pooling_of_regions(flow: Flow, node: fx.Node) -> None:
    """Regions of several feature maps with the same channels."""
    flow.layouts[node] = _together(flow, [layout_of(flow, n) for n in tensors_read(node)])


def across_channels(flow: Flow, node: fx.Node) -> None:
    """Mixes channels without weights: they are kept."""
    read = tensors_read(node)[0]
    flow.pin(read)
    flow.layouts[node] = layout_of(flow, read) if shape_of(read) == shape_of(node) else None


def along_axis(flow: Flow, node: fx.Node) -> None:
    """Softmax and the like: harmless along any axis but that of the channels."""
    read = tensors_read(node)[0]
    layout, module = layout_of(flow, read), module_of(node)
    axis = getattr(module, "dim", None) if module is not None else argument(node, 1, "dim")
    if layout is None or (axis is not None and axis % len(shape_of(read)) != layout.axis):
        flow.layouts[node] = layout
    else:
        across_channels(flow, node)


def norm(flow: Flow, node: fx.Node) -> None:
    """`torch.norm(x, p, dim)`: a reduction whose axes come after its exponent."""
    reduction(flow, node, place=2)


def reduction(flow: Flow, node: fx.Node, place: int = 1) -> None:
    """Sum, mean and the like over some axes, named in the argument at `place`."""
    read = tensors_read(node)[0]
    layout, dims = layout_of(flow, read), len(shape_of(read))
    over = argument(node, place, "dim", node.kwargs.get("axis"))
    if over is None or isinstance(over, bool) or over == ():
        over = tuple(range(dims))
    over = sorted({k % dims for k in ([over] if isinstance(over, int) else over)})
    several = not is_tensor(node)  # values and indices
    shape = tuple(node.meta["example"][0].shape) if several else shape_of(node)
    if layout is not None and layout.axis in over:
        flow.couplings.pin(layout.labels)
        layout = None
    elif layout is not None and len(shape) < dims:
        layout = Layout(layout.axis - sum(k < layout.axis for k in over), layout.labels)
    flow.layouts[node] = (layout, layout) if several else layout


def extreme(flow: Flow, node: fx.Node) -> None:
    """`max` and `min`, of two tensors or along an axis."""
    (elementwise if len(tensors_read(node)) > 1 else reduction)(flow, node)


def movement(flow: Flow, node: fx.Node) -> None:
    """Moves elements of one tensor."""
    read = tensors_read(node)
    if any(on_images(n) for n in read[1:]):
        flow.refuse(node, "where elements go depends on the data")
    move(flow, node, read[0])


def like(flow: Flow, node: fx.Node) -> None:
    """`expand_as` and the like: one tensor in the shape of another."""
    read, other = tensors_read(node)
    mine, theirs = layout_of(flow, read), layout_of(flow, other)
    flow.layouts[node] = None
    if theirs is None or operation_name(node) != "expand_as":
        flow.pin(read)
        flow.pin(other)
        return
    place = theirs.axis - len(shape_of(node)) + len(shape_of(read))
    size = shape_of(read)[place] if place >= 0 else 1
    if mine is not None and mine.axis == place and size > 1:
        flow.couplings.couple(mine.labels, theirs.labels)
    else:
        flow.pin(read)
        if size > 1:
            flow.pin(other)
    flow.layouts[node] = theirs


def copying(flow: Flow, node: fx.Node) -> None:
    """The same elements in the same places."""
    read = tensors_read(node)[0]
    if isinstance(flow.layouts.get(read), Folded | Weights):
        move(flow, node, read)
    else:
        flow.layouts[node] = flow.layouts.get(read)


def pick(flow: Flow, node: fx.Node) -> None:
    """`x[...]`, of a tensor or of the parts that an operation gave."""
    source: Any = node.args[0]
    if isinstance(flow.layouts.get(source), tuple):
        part_of(flow, node)
    elif is_tensor(source):
        movement(flow, node)
    else:
        flow.layouts[node] = None


def named_part(flow: Flow, node: fx.Node) -> None:
    """`x.max(1).values`: a part of what an operation gave; `x.mT`: its elements, moved."""
    args: tuple[Any, ...] = node.args
    source, name = args[:2]
    if is_tensor(source) and name in ("T", "mT"):
        return move(flow, node, source)
    parts = flow.layouts.get(source)
    if parts is not None and not (isinstance(parts, tuple) and name in ("values", "indices")):
        flow.refuse(node, f"there is no rule for .{name}")
    flow.layouts[node] = parts and parts[("values", "indices").index(name)]


def written(flow: Flow, node: fx.Node) -> None:
    """`x[...] = y`: of a tensor that was made for it, all of which is kept."""
    target: Any = node.args[0]
    if not is_tensor(target) or operation_name(target) not in FACTORIES:
        raise WritesInPlace(node, "'setitem': it writes into a part of a tensor")
    for read in node.all_input_nodes:
        flow.pin(read)
    flow.layouts[node] = None


FACTORIES = ("zeros", "ones", "new_zeros", "new_ones", "full", "new_full", "zeros_like")


def padding(flow: Flow, node: fx.Node) -> None:
    """Zeros (or copies) around an image, or channels of zeros before or after the others."""
    read, module = tensors_read(node)[0], module_of(node)
    layout = layout_of(flow, read)
    before, after = shape_of(read), shape_of(node)
    if layout is None or before[layout.axis] == after[layout.axis]:
        flow.layouts[node] = layout
        return
    value = getattr(module, "value", 0) if module is not None else argument(node, 3, "value", 0)
    if value not in (0, None):
        flow.refuse(node, "it adds channels that are not zero")
    if any(a != b for k, (a, b) in enumerate(zip(before, after, strict=True)) if k != layout.axis):
        flow.refuse(node, "it pads channels and image at once (pad one, then the other)")
    move(flow, node, read)


def constant(flow: Flow, node: fx.Node) -> None:
    """`torch.zeros(n, c, h, w)`: channels that are all the same, as many as are asked for."""
    shape = shape_of(node)
    flow.layouts[node] = None
    if len(shape) > 1 and shape[1] > 1:
        flow.layouts[node] = Layout(1, flow.couplings.fresh(shape[1]))


def concatenation(flow: Flow, node: fx.Node) -> None:
    """Channels one after the other, or, along another axis, of all inputs together."""
    parts = list(argument(node, 0, "tensors"))
    axis = argument(node, 1, "dim", node.kwargs.get("axis", 0)) % len(shape_of(node))
    layouts = [layout_of(flow, part) for part in parts]
    known = [layout for layout in layouts if layout is not None]
    if known and all(layout.axis == axis for layout in known):
        labels = [
            layout.labels if layout is not None else flow.couplings.fixed(shape_of(part)[axis])
            for layout, part in zip(layouts, parts, strict=True)
        ]
        flow.layouts[node] = Layout(axis, np.concatenate(labels))
    else:
        flow.layouts[node] = _together(flow, layouts)


def stack(flow: Flow, node: fx.Node) -> None:
    """A new axis, along which tensors with the same channels lie."""
    parts = list(argument(node, 0, "tensors"))
    axis = argument(node, 1, "dim", node.kwargs.get("axis", 0)) % len(shape_of(node))
    found = _together(flow, [layout_of(flow, part) for part in parts])
    if found is not None and axis <= found.axis:
        found = Layout(found.axis + 1, found.labels)
    flow.layouts[node] = found


def _together(flow: Flow, layouts: list[Layout | None]) -> Layout | None:
    """Layout of tensors of which each index of each axis must mean the same channel."""
    known = [layout for layout in layouts if layout is not None]
    if not known:
        return None
    same = len(known) == len(layouts) and len({layout.axis for layout in known}) == 1
    for layout in known:
        if same:
            flow.couplings.couple(layout.labels, known[0].labels)
        else:
            flow.couplings.pin(layout.labels)
    return known[0] if same else None
