"""What modules are called with and give: tensors in lists, dictionaries and objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from gnnrl.tasks.nested import tensors
from gnnrl.tracing.meta import without_data

_POOLS = ("MultiScaleRoIAlign",)
"""Modules of torchvision that pool regions of feature maps, each channel by itself."""


def hollow(value: Any) -> Any:
    """Return a tensor without its data; anything else as it is."""
    return value.to("meta") if isinstance(value, Tensor) else value


def hollow_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a network without the data of their tensors."""
    found: dict[str, Any] = without_data(dict(inputs))
    return dict(found)


def same_shapes(a: Any, b: Any) -> bool:
    """Whether two values hold tensors of the same shapes, in the same order."""
    shapes = [[tuple(t.shape) for t in tensors(x)] for x in (a, b)]
    return shapes[0] == shapes[1]


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer of PyTorch, which is called and not read."""
    return type(module).__module__.startswith("torch.nn.modules") and (
        next(module.children(), None) is None and type(module).forward is not nn.Module.forward
    )


def pools_regions(module: nn.Module) -> bool:
    """Whether a module pools regions of feature maps, each channel by itself."""
    return type(module).__name__ in _POOLS and type(module).__module__.startswith("torchvision.ops")


def tensors_by_name(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What a module is called with, by name.  Raises `TypeError` for other things than tensors."""
    takes = inspect.signature(type(module).forward)
    bound = takes.bind(module, *args, **kwargs).arguments
    given = {k: v for k, v in list(bound.items())[1:] if v is not None}
    kinds = {takes.parameters[k].kind for k in given}
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if kinds & variadic or not all(isinstance(v, Tensor) for v in pytree.tree_leaves(given)):
        raise TypeError("it takes other things than tensors")
    return given


def in_joined(value: Any, copies: Mapping[fx.Node, Any]) -> Any:
    """Arguments with the operations of the joined graph in the place of those of a part."""
    if isinstance(value, fx.Node):
        return copies[value]
    if isinstance(value, Mapping):
        return {k: in_joined(v, copies) for k, v in value.items()}
    if isinstance(value, list | tuple):
        made = [in_joined(v, copies) for v in value]
        return made if isinstance(value, list) else tuple(made)
    if isinstance(value, slice):
        return slice(*(in_joined(v, copies) for v in (value.start, value.stop, value.step)))
    return value


def chosen_part(node: fx.Node, copies: Mapping[fx.Node, Any]) -> Any:
    """What `x[i]`, `x.values()` and the like give of an input that is a list or a dictionary."""
    source = node.args[0] if node.args else None
    held = copies.get(source) if isinstance(source, fx.Node) else None
    if not isinstance(held, list | dict):
        return None
    if getattr(node.target, "__name__", "") == "getitem":
        key: Any = node.args[1]
        return held[key]
    if node.target in ("values", "keys", "items"):
        return list(getattr(held, str(node.target))())
    return None


def are_plain(values: Any) -> bool:
    """Whether nested values hold nothing but nodes and plain Python values."""
    plain = (fx.Node, int, float, bool, str, type(None))
    return all(isinstance(v, plain) for v in pytree.tree_leaves(values))
