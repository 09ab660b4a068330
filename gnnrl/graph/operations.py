"""All operations that a graph can hold, each with what the rest of the library asks of it.

A new operation is added here, and its rule in `gnnrl.graph.rules.table`; `docs/extending.md` shows
how.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from gnnrl.graph.graph import Node

Timed = Callable[[Node, Tensor, int], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Operation:
    """What is known of an operation.

    name: as in `Node.operation`.  is_layer: may be removed by itself (space `layers`).
    mixes_channels: its output channels are others than its input channels.
    has_column, has_layer_column: observations of channels, of layers, have a column for it; without
    one it shares the column of all others.  layer_type: number of its type in SageMaker's example
    of N2N, 0: none.  is_drawn: shown in pictures also where it follows one other operation.
    timed: builds what a latency table measures, from the node, the input `[N, C, ...]` and the
    number of output channels; None: it takes no time.
    """

    name: str
    is_layer: bool = False
    mixes_channels: bool = False
    has_column: bool = False
    has_layer_column: bool = False
    layer_type: int = 0
    is_drawn: bool = True
    timed: Timed | None = None


def _convolution(node: Node, x: Tensor, outputs: int) -> nn.Module:
    inputs = x.shape[1]
    depthwise = int(node.attributes.get("groups", 1)) > 1
    settings = {k: node.attributes[k] for k in ("stride", "padding", "dilation")}
    kernel = tuple(node.attributes["kernel_size"])
    groups = inputs if depthwise else 1
    return nn.Conv2d(inputs, inputs if depthwise else outputs, kernel, groups=groups, **settings)


def _norm(node: Node, x: Tensor, outputs: int) -> Callable[[Tensor], Tensor]:
    return nn.BatchNorm2d(x.shape[1]).eval() if x.ndim == 4 else F.relu


def _pool(node: Node, x: Tensor, outputs: int) -> Callable[[Tensor], Tensor]:
    to_one = math.prod(node.shape[1:]) == 1 and x.ndim == 4
    return nn.AdaptiveAvgPool2d(1) if to_one else F.relu


def _twice(node: Node, x: Tensor, outputs: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x + x


_ALL = (
    Operation("input", has_column=True, has_layer_column=True),
    Operation(
        "conv", is_layer=True, mixes_channels=True, has_column=True, has_layer_column=True,
        layer_type=1, timed=_convolution,
    ),
    Operation(
        "linear", is_layer=True, mixes_channels=True, has_column=True, has_layer_column=True,
        layer_type=2, timed=lambda node, x, outputs: nn.Linear(x.shape[1], outputs),
    ),
    Operation(
        "norm", is_layer=True, has_column=True, has_layer_column=True, layer_type=4,
        is_drawn=False, timed=_norm,
    ),
    Operation(
        "activation", is_layer=True, has_column=True, has_layer_column=True, layer_type=3,
        is_drawn=False, timed=lambda node, x, outputs: F.relu,
    ),
    Operation(
        "pool", is_layer=True, has_column=True, has_layer_column=True, layer_type=5, timed=_pool
    ),
    Operation("add", has_column=True, has_layer_column=True, timed=_twice),
    Operation("mul", has_column=True, timed=_twice),
    Operation("cat", has_column=True, has_layer_column=True),
    Operation("reshape", has_column=True),
    Operation("pad", has_column=True),
    Operation("slice", has_column=True),
    Operation("identity", is_drawn=False),
    Operation("arithmetic", is_drawn=False),
    *map(Operation, ("attention", "constant", "lrn", "matmul", "opaque", "output", "parameter")),
    *map(Operation, ("resize", "softmax", "embedding", "write")),
)  # fmt: skip

OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _ALL}
"""By name.  The order is that of the columns of observations: append new ones at the end."""


def operation_of(node: Node) -> Operation:
    """What is known of a node's operation: nothing if it has no rule, which gives it its name."""
    return OPERATIONS.get(node.operation, Operation(node.operation))
