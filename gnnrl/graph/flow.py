"""How channels flow through the operations of a traced network.

Each tensor has a layout: the axis its channels lie on and a label for every index of that axis.
Layers make labels, elementwise operations make labels equal, and operations that only move data
(reshape, permute, slice, pad, shuffle …) are run on a tensor of positions, which tells exactly
where every channel went, whatever the network's author wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gnnrl.errors import UserError
from gnnrl.graph.couplings import Couplings
from gnnrl.graph.trace import attribute, operation_name, scope_of


@dataclass(frozen=True)
class Layout:
    """labels `[length]` of the indices of `axis`; the other axes do not tell channels apart."""

    axis: int
    labels: np.ndarray


@dataclass(frozen=True)
class Folded:
    """Channels spread over several axes, between two reshapes.

    source: the last node with a layout.  positions: for each element, 1 + the flat position of
    its origin in the source, 0 for padding.
    """

    source: fx.Node
    positions: Tensor


@dataclass(frozen=True)
class Weights:
    """A parameter used by the network's own code; the operation that reads it gives its layout."""

    path: str


@dataclass(frozen=True)
class Gather:
    """In the cut network: pick channels `index` `[length]` (-1: zeros) of `source` on `axis`."""

    source: fx.Node
    axis: int
    index: np.ndarray


@dataclass(frozen=True)
class Layer:
    """What an operation with weights does to channels.

    filters: labels of what it makes.  parameters: names, the weight first.  positions: uses of
    the weight for one image.  per_group: inputs of one convolution group where whole groups are
    cut together, else 0.
    """

    name: str
    filters: np.ndarray | None
    parameters: tuple[str, ...]
    positions: int = 0
    per_group: int = 0


@dataclass
class Flow:
    """Everything found out about a traced network; the rules fill it node by node."""

    traced: fx.GraphModule
    protected: frozenset[str]
    couplings: Couplings = field(default_factory=Couplings)
    layouts: dict[fx.Node, Any] = field(default_factory=dict)
    axes: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    layers: dict[fx.Node, Layer] = field(default_factory=dict)
    gathers: dict[fx.Node, Gather] = field(default_factory=dict)

    def layout(self, node: fx.Node) -> Layout | None:
        """Layout of a tensor that an operation reads; None: it carries no channels to cut."""
        found = self.layouts.get(node)
        if isinstance(found, Folded):
            self.refuse(node, "its channels are spread over several axes when they are used")
        return found if isinstance(found, Layout) else None

    def bind(self, path: str, axis: int, labels: np.ndarray) -> None:
        """Axis `axis` of parameter `path` shrinks with `labels`."""
        known = self.axes.setdefault((path, axis), labels)
        self.couplings.couple(known, labels)

    def pin(self, node: fx.Node) -> None:
        """Keep every channel of a tensor."""
        found = self.layouts.get(node)
        if isinstance(found, Layout):
            self.couplings.pin(found.labels)
        elif isinstance(found, Folded):
            source = self.layouts[found.source]
            self.couplings.pin(source.labels)

    def refuse(self, node: fx.Node, why: str) -> None:
        """Say that this operation cannot be cut safely."""
        where = scope_of(node) or type(self.traced).__name__
        raise UserError(
            f"{where}: no safe way to cut channels through {operation_name(node)!r}: {why}; "
            "protect this part (extract.protect) or rewrite it with an operation that has a rule"
        )

    def is_protected(self, layer: str) -> bool:
        return any(layer == name or layer.startswith(f"{name}.") for name in self.protected)


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of what a node gave for the example, batch axis included."""
    return tuple(node.meta["example"].shape)


def is_tensor(node: Any) -> bool:
    return isinstance(node, fx.Node) and isinstance(node.meta.get("example"), Tensor)


def move(flow: Flow, node: fx.Node, read: fx.Node) -> None:
    """Layout after an operation that moves the elements of `read` and changes none."""
    before = flow.layouts.get(read)
    if not isinstance(before, Layout | Folded):
        flow.layouts[node] = None if not isinstance(before, Weights) else before
        return
    if isinstance(before, Layout):
        shape = shape_of(read)
        positions = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).view(shape)
        before = Folded(read, positions)
    after = _run(node, read, before.positions)
    if isinstance(after, Tensor):
        flow.layouts[node] = settle(flow, node, before.source, after)
    else:
        flow.layouts[node] = tuple(Folded(before.source, part) for part in after)


def settle(flow: Flow, node: fx.Node, source: fx.Node, positions: Tensor) -> Layout | Folded:
    """Find the channel axis of moved elements, if there is one."""
    layout, shape = flow.layouts[source], shape_of(source)
    channel = _channel_of(positions, shape, layout.axis)
    index = _gathered(positions, channel, shape, layout.axis)
    if index is not None:
        whole = len(index) == shape[layout.axis] and (index == np.arange(len(index))).all()
        if whole and source in node.all_input_nodes:
            return layout
        flow.gathers[node] = Gather(source, layout.axis, index)
        labels = np.where(index >= 0, layout.labels[index], -1)
        labels[index < 0] = flow.couplings.fresh(int((index < 0).sum()))
        return Layout(layout.axis, labels)
    direct = source in node.all_input_nodes
    varying = [k for k in range(channel.ndim) if (channel != channel.narrow(k, 0, 1)).any()]
    if len(varying) <= 1 and direct and (channel >= 0).all():
        axis = varying[0] if varying else _axis_of_one(layout, shape, tuple(positions.shape))
        line = channel[tuple(slice(None) if k == axis else 0 for k in range(channel.ndim))]
        if _keeps_order(line.numpy(), shape[layout.axis]):
            return Layout(axis, layout.labels[line.numpy()])
    return Folded(source, positions)


def _axis_of_one(layout: Layout, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Where the axis of a single channel went; any axis of length one tells no channels apart."""
    if len(before) == len(after) and after[layout.axis] == 1:
        return layout.axis
    return next((k for k in range(1, len(after)) if after[k] == 1), len(after) - 1)


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


def _run(node: fx.Node, read: fx.Node, value: Tensor) -> Any:
    """Run one operation on other values than the example's."""

    def concrete(n: fx.Node) -> Any:
        if n.op == "get_attr":
            return attribute(node.graph.owning_module, str(n.target))
        return value if n is read else n.meta["example"]

    args: Any = fx.node.map_arg(node.args, concrete)
    kwargs: Mapping[str, Any] = fx.node.map_arg(node.kwargs, concrete)
    if node.op == "call_module":
        return node.graph.owning_module.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)
