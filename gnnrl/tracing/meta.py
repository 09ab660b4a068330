"""A network without its numbers: shapes run through it, and nothing else can."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

NEEDS_DATA = (RuntimeError, NotImplementedError, TypeError)
"""What an operation raises that needs the numbers in a tensor, among other things."""


def is_about_data(error: Exception) -> bool:
    """Whether an operation failed because it needs the numbers in a tensor, not its shape."""
    return "meta" in str(error).lower()


def without_data(value: Any) -> Any:
    """The same value, its tensors without storage."""
    if type(value).__module__ == "torch.return_types":  # a tuple whose parts have names
        return type(value)([without_data(part) for part in value])
    return fx.node.map_aggregate(value, lambda v: v.to("meta") if isinstance(v, Tensor) else v)


def nowhere(node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments of an operation that moves a tensor to a device, which here is none."""
    if node.op != "call_method" or node.target != "to":
        return args, kwargs
    return fx.node.map_aggregate(
        (args, kwargs), lambda v: torch.device("meta") if isinstance(v, torch.device) else v
    )  # type: ignore[return-value]


def skeleton_of(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose tensors have no storage: running it costs nothing."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            memo.update((id(t), _hollow(t)) for t in held.values() if isinstance(t, Tensor))
    return evaluating(copy.deepcopy(network, memo))


def copy_of(network: nn.Module) -> nn.Module:
    """A copy; tensors that a forward pass has left on its modules are copied as they are."""
    held = [t for m in network.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    return copy.deepcopy(network, {id(t): t.detach().clone() for t in held if not t.is_leaf})


def evaluating(network: nn.Module) -> nn.Module:
    """The network itself in evaluation mode, whatever its own `train` gives."""
    network.train(False)
    return network


def _hollow(tensor: Tensor) -> Tensor:
    hollow = tensor.detach().to("meta")
    return (
        nn.Parameter(hollow, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else hollow
    )


def run_part(
    skeleton: nn.Module, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What a part that is not traced gives; on zeros if it cannot do without data."""
    try:
        return skeleton.forward(*args, **kwargs)
    except NEEDS_DATA as error:
        if not is_about_data(error):
            raise
    like = next(part.parameters(), torch.empty(0))

    def zeros(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return torch.zeros(value.shape, dtype=value.dtype, device=like.device)

    args, kwargs = fx.node.map_aggregate((args, kwargs), zeros)
    with torch.device(like.device):
        return evaluating(copy_of(part)).forward(*args, **kwargs)
