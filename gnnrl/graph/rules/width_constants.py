"""Numbers that a network derives from the widths of its tensors.

The cut network must go on as the dense one would have: a number that follows from a width (a
scale of 1 / sqrt(C), the zeros of `torch.zeros(n, c, h, w)`) keeps the dense value.  Sizes of
reshapes are rewritten afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from gnnrl.graph.rules.flow import Flow, Folded, Layout, shape_of
from gnnrl.graph.rules.reshape import varies
from gnnrl.tracing.fx_utils import call, on_batch


def settle_numbers(flow: Flow, node: fx.Node) -> None:
    """Write down the numbers among the arguments of `node` that follow from a width.

    Those that follow from the size of the batch too cannot be written down; there the width
    stays.
    """

    def settled(n: fx.Node) -> Any:
        if not _is_number(n) or not _follows(flow, n, "width"):
            return n
        if not _follows(flow, n, "batch"):
            return n.meta["example"]
        for leaf in _leaves(n):
            flow.pin(leaf)
        return n

    node.args = fx.node.map_arg(node.args, settled)
    node.kwargs = fx.node.map_arg(node.kwargs, settled)


def _is_number(node: fx.Node) -> bool:
    value = node.meta["example"]
    several = value if isinstance(value, tuple | list) else (value,)
    return node.op in ("call_function", "call_method") and all(
        isinstance(v, int | float) for v in several
    )


def _follows(flow: Flow, node: fx.Node, what: str) -> bool:
    """Whether a number changes with the width, or the batch, of the tensors it comes from."""
    try:
        return bool(_value(flow, node, what) != node.meta["example"])
    except (RuntimeError, TypeError, ValueError, IndexError):
        return True


def _value(flow: Flow, node: fx.Node, what: str) -> Any:
    example = node.meta["example"]
    if isinstance(example, Tensor):
        return _changed(flow, node, what)
    if node.op not in ("call_function", "call_method"):
        return example
    args = fx.node.map_arg(node.args, lambda n: _value(flow, n, what))
    kwargs = fx.node.map_arg(node.kwargs, lambda n: _value(flow, n, what))
    return call(node, args, kwargs)


def _changed(flow: Flow, node: fx.Node, what: str) -> Tensor:
    """A tensor of the example's shape but for the axes in question."""
    shape, found = list(shape_of(node)), flow.layouts.get(node)
    axes: list[int] = []
    if what == "batch":
        axes = [0] if on_batch(node) else []
    elif isinstance(found, Layout):
        axes = [found.axis]
    elif isinstance(found, Folded):
        axes = [k for k in range(1, len(shape)) if varies(found, flow.layouts[found.source], k)]
    for axis in axes[: len(shape)]:
        shape[axis] *= 2
    return torch.empty(shape, device="meta")


def _leaves(node: fx.Node) -> set[fx.Node]:
    """Tensors that a number comes from."""
    if isinstance(node.meta["example"], Tensor):
        return {node}
    return {leaf for n in node.all_input_nodes for leaf in _leaves(n)}
