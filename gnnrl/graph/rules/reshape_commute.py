"""Channels that a reshape has spread over several axes, before an operation that needs them.

Two things are exact.  Either channels are coupled until one axis alone distinguishes them (all the
channels that a pixel shuffle puts into one, the same channel of every group of `[N, G, C/G, …]`),
or all of them are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx, nn

from gnnrl.tracing.fx_utils import attribute, call, module_of, on_images, owner_of

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
        except (RuntimeError, TypeError, IndexError):
            return False
        if found.shape != expected.shape or not torch.equal(found, expected):
            return False
    return True


def fitted(node: fx.Node, axis: int, width: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of an operation that names sizes, with `width` written for `axis` of its output.

    -1 finds the size by itself.
    """
    args: list[Any] = list(node.args)
    kwargs: dict[str, Any] = dict(node.kwargs)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "unflatten" and len(args) == 3:
        start = args[1] % len(args[0].meta["example"].shape)
        args[2] = _written(args[2], axis - start, width)
    elif name in ("squeeze",) and len(args) == 1 and not kwargs:
        shape = args[0].meta["example"].shape  # never an axis that only became short by the cut
        args.append(tuple(k for k, size in enumerate(shape) if size == 1))
    elif name in _SIZES:
        first = _SIZES[name]
        if "size" in kwargs:
            kwargs["size"] = _written(kwargs["size"], axis, width)
        elif len(args) > first and isinstance(args[first], tuple | list):
            args[first] = _written(args[first], axis, width)
        else:
            args[first:] = _written(args[first:], axis, width)
    return tuple(args), kwargs


_SIZES = {
    "view": 1,
    "reshape": 1,
    "expand": 1,
    "zeros": 0,
    "ones": 0,
    "new_zeros": 1,
    "new_ones": 1,
}
"""Operations that name the sizes of what they give, and the place of the first."""


def _written(sizes: Sequence[Any], axis: int, width: int) -> tuple[Any, ...]:
    return tuple(width if k == axis and size != -1 else size for k, size in enumerate(sizes))


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
            return _here(attribute(owner_of(node), str(n.target)))
        example = n.meta["example"]
        if isinstance(example, torch.device):
            return torch.device("cpu")
        if n.op == "call_module" and not isinstance(example, Tensor):
            return example  # what a part that is left whole gives beside its tensors
        if n.all_input_nodes and not (isinstance(example, Tensor) and on_images(n)):
            return run(n, values)  # a number, or what follows from parameters alone
        return _here(example)

    args = fx.node.map_arg(node.args if args is None else args, concrete)
    kwargs = fx.node.map_arg(node.kwargs if kwargs is None else kwargs, concrete)
    if node.op == "call_module":
        return _module_here(node)(*args, **kwargs)
    return call(node, args, kwargs)


def _here(value: Any) -> Any:
    """A tensor of a GPU where positions are: on the processor."""
    on_gpu = isinstance(value, Tensor) and value.device.type not in ("cpu", "meta")
    return value.cpu() if on_gpu else value


def _module_here(node: fx.Node) -> Any:
    """A module that can take positions, also where its index is on a GPU."""
    module = module_of(node)
    state = (*module.parameters(), *module.buffers()) if isinstance(module, nn.Module) else ()
    return module if all(_here(t) is t for t in state) else copy.deepcopy(module).cpu()
