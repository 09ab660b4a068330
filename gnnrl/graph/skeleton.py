"""A network without its numbers: shapes run through it, and nothing else can."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, fx, nn

NEEDS_DATA = (RuntimeError, NotImplementedError, TypeError)
"""What an operation raises that needs the numbers in a tensor, among other things."""


def is_about_data(error: Exception) -> bool:
    """Whether an operation failed because it needs the numbers in a tensor, not its shape."""
    return "meta" in str(error).lower()


def without_data(value: Any) -> Any:
    """The same value, its tensors without storage."""
    return fx.node.map_aggregate(value, lambda v: v.to("meta") if isinstance(v, Tensor) else v)


def skeleton_of(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose tensors have no storage: running it costs nothing."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            memo.update((id(t), _hollow(t)) for t in held.values() if isinstance(t, Tensor))
    return copy.deepcopy(network, memo).eval()


def _hollow(tensor: Tensor) -> Tensor:
    hollow = tensor.detach().to("meta")
    return (
        nn.Parameter(hollow, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else hollow
    )
