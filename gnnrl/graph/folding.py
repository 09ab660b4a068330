"""Channels that a reshape has spread over several axes, and an operation then looks at.

Two things are exact.  Either channels are coupled until one axis alone tells them apart (all the
channels that a pixel shuffle puts into one, the same channel of every group of `[N, G, C/G, …]`),
or all of them stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from gnnrl.graph.trace import attribute

TRIALS = 3


def classes_along(channel: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Coarsest-needed classes `[count]` of channels, so that `axis` alone tells them apart.

    channel: the channel each element of a tensor came from.
    """
    rows = np.moveaxis(channel, axis, 0).reshape(channel.shape[axis], -1)
    first = np.broadcast_to(rows[:, :1], rows.shape)
    links = coo_matrix(
        (np.ones(rows.size, dtype=bool), (rows.reshape(-1), first.reshape(-1))), (count, count)
    )
    return connected_components(links, directed=False)[1]


def line_of(classes: np.ndarray, axis: int) -> np.ndarray | None:
    """Class of each index of `axis`, if the other axes tell no classes apart."""
    start = classes[tuple(slice(None) if k == axis else slice(0, 1) for k in range(classes.ndim))]
    return start.reshape(-1) if (classes == start).all() else None


def commutes(
    node: fx.Node,
    read: fx.Node,
    before: tuple[int, np.ndarray],
    after: tuple[int, np.ndarray],
) -> bool:
    """Whether cutting first and moving then is the same as moving first and cutting then.

    before, after: (axis, class of each index) of what `node` reads and of what it gives.  It is
    tried out on a few random choices of classes, with the sizes rewritten as surgery does.
    """
    axis, classes = before
    shape = tuple(read.meta["example"].shape)
    positions = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    moved = run(node, {read: positions})
    generator = np.random.default_rng(0)
    names = np.unique(classes)
    for _ in range(TRIALS):
        stays = generator.random(classes.max() + 1) < 0.5
        stays[generator.choice(names)] = True
        first = positions.index_select(axis, torch.from_numpy(np.flatnonzero(stays[classes])))
        kept = torch.from_numpy(np.flatnonzero(stays[after[1]]))
        expected = moved.index_select(after[0], kept)
        args, kwargs = fitted(node, after[0], len(kept))
        try:
            found = run(node, {read: first}, args, kwargs)
        except (RuntimeError, TypeError):
            return False
        if found.shape != expected.shape or not torch.equal(found, expected):
            return False
    return True


def fitted(node: fx.Node, axis: int, width: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of an operation that names sizes, with `width` written for `axis` of its output.

    -1 finds the size by itself.
    """
    args, kwargs = list(node.args), dict(node.kwargs)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in ("view", "reshape", "expand") and len(args) > 1:
        listed = isinstance(args[1], tuple | list)
        sizes = list(args[1]) if listed else args[1:]
        if axis < len(sizes) and sizes[axis] != -1:
            sizes[axis] = width
        args = [args[0], tuple(sizes)] if listed else [args[0], *sizes]
    elif name == "unflatten" and len(args) == 3:
        start = args[1] % len(args[0].meta["example"].shape)
        sizes = list(args[2])
        if 0 <= axis - start < len(sizes) and sizes[axis - start] != -1:
            sizes[axis - start] = width
        args[2] = tuple(sizes)
    return tuple(args), kwargs


def run(
    node: fx.Node,
    values: Mapping[fx.Node, Tensor],
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Run one operation on other values than the example's; numbers follow from the values."""

    def concrete(n: fx.Node) -> Any:
        if n in values:
            return values[n]
        if n.op == "get_attr":
            return attribute(node.graph.owning_module, str(n.target))
        if not isinstance(n.meta["example"], Tensor) and n.all_input_nodes:
            return run(n, values)
        return n.meta["example"]

    args = fx.node.map_arg(node.args if args is None else args, concrete)
    kwargs = fx.node.map_arg(node.kwargs if kwargs is None else kwargs, concrete)
    if node.op == "call_module":
        return node.graph.owning_module.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)
