"""Names of what stands in a traced network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import fx, nn


def operation_name(node: fx.Node) -> str:
    """`conv2d`, `add`, `BatchNorm2d` …: what a node does, in one word."""
    if node.op == "call_module":
        return type(module_of(node)).__name__
    if node.op in ("call_method", "get_attr"):
        return str(node.target)
    return getattr(node.target, "__name__", str(node.target))


def owner_of(node: fx.Node) -> nn.Module:
    """The traced network that a node belongs to."""
    owner = node.graph.owning_module
    assert owner is not None
    return owner


def module_of(node: fx.Node) -> Any:
    """The module that a node calls; None where it calls none."""
    return owner_of(node).get_submodule(str(node.target)) if node.op == "call_module" else None


def call(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Call the function or method that a node calls, with these arguments."""
    args, kwargs = thawed(args), thawed(kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Any = node.target
    return function(*args, **kwargs)


def quietly(network: nn.Module) -> Callable[..., Any]:
    """Return what calls a network; torch.fx would report on the terminal what its own graphs raise,
    also where that is caught."""
    return partial(nn.Module.__call__, network) if isinstance(network, fx.GraphModule) else network


def thawed(value: Any) -> Any:
    """Arguments of an operation as lists that it may change."""
    if isinstance(value, list):
        return [thawed(part) for part in value]
    if type(value) is tuple:
        return tuple(thawed(part) for part in value)
    return {k: thawed(v) for k, v in value.items()} if isinstance(value, dict) else value


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads a node's output; None where several or none do."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def scope_of(node: fx.Node) -> str:
    """Dotted name of the module a node belongs to; empty for the network itself."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def attribute(module: nn.Module, path: str) -> Any:
    """What stands at a dotted path below a module."""
    *parents, name = path.split(".")
    return getattr(module.get_submodule(".".join(parents)), name)


def on_images(node: fx.Node) -> bool:
    """Whether a node depends on the data that the network reads, not on their shapes alone."""
    return "data" in node.meta["follows"]


def on_batch(node: fx.Node) -> bool:
    """Whether a node depends on the data or the shapes of what the network reads."""
    return bool(node.meta["follows"])


def followed(node: fx.Node) -> set[str]:
    """What of the network's inputs a node follows, when its inputs and its value are known."""
    if node.op == "placeholder":
        return {"data", "shape"}
    found = set().union(*(n.meta["follows"] for n in node.all_input_nodes))
    attribute_of = node.args[1] if node.target is getattr else node.target
    numbers = node.op == "call_method" and node.target in ("size", "dim", "numel", "ndimension")
    if numbers or attribute_of in ("shape", "device", "dtype", "ndim"):
        return found - {"data"}
    return found
