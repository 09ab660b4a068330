"""A network as a flat list of operations: a symbolic trace that can look at concrete shapes.

`torch.fx` records the operations.  Where a network's Python asks for a number that follows from the
shapes alone (`if x.shape[-1] > 7`, `len(features)`), the recorded prefix is run on the example
input and the answer given; where it asks for a number that depends on the data, the network is
refused.  A flag that follows `network.training` stays a flag of the traced network.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.graph.skeleton import NEEDS_DATA, is_about_data, skeleton_of, without_data


class _ShapeProxy(fx.Proxy):
    """A proxy which answers questions about sizes by running what was recorded so far."""

    def __len__(self) -> int:
        return len(self.tracer.known(self.node))

    def __index__(self) -> int:
        return self.tracer.number(self.node)

    def __int__(self) -> int:
        return self.tracer.number(self.node)

    def __float__(self) -> float:
        return float(self.tracer.number(self.node))


_FACTORIES = (torch.zeros, torch.ones, torch.full, torch.arange)


class _Tracer(fx.Tracer):
    """skeleton: the network without data, on which recorded prefixes run."""

    def __init__(self, skeleton: nn.Module, example: Tensor, opaque: frozenset[str]) -> None:
        super().__init__(autowrap_functions=_FACTORIES)
        self._autowrap_search.append(torch)  # `torch.zeros(n, c)` is recorded if n or c is
        self._skeleton, self._example, self._opaque = skeleton, example, opaque
        self._values: dict[fx.Node, Any] = {}
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._opaque or super().is_leaf_module(
            m, module_qualified_name
        )

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _ShapeProxy(node, self)

    # While a recorded prefix runs, modules behave as if nothing were being recorded.
    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self._running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.number(obj.node))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return (obj[i] for i in range(len(self.known(obj.node))))

    def number(self, node: fx.Node) -> Any:
        """The value of a node that depends on shapes only."""
        value = self.known(node)
        if isinstance(value, Tensor):
            raise _depends_on_data(node, type(self.root).__name__)
        return value

    def known(self, node: fx.Node) -> Any:
        """The value of a node for an input of the example's shape, running what it needs."""
        if node not in self._values:
            args = fx.node.map_arg(node.args, self.known)
            kwargs = fx.node.map_arg(node.kwargs, self.known)
            self._running = True
            try:
                with torch.no_grad(), torch.device("meta"):
                    self._values[node] = without_data(self._run(node, args, kwargs))
            except NEEDS_DATA as error:
                if not is_about_data(error):
                    raise
                raise _depends_on_data(node, type(self.root).__name__) from error
            finally:
                self._running = False
        return self._values[node]

    def _run(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "placeholder":
            first = next(n for n in node.graph.nodes if n.op == "placeholder")
            return self._example if node is first else (node.args[0] if node.args else None)
        if node.op == "get_attr":
            return attribute(self.root, str(node.target))
        if node.op == "call_module":
            return self._skeleton.get_submodule(str(node.target)).forward(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def _depends_on_data(node: fx.Node, root: str) -> UserError:
    return UserError(
        f"{scope_of(node) or root}: what the network does depends on the data "
        f"({operation_name(node)!r}), so there is no one graph of it; rewrite that part without "
        "it or protect it (extract.protect)"
    )


def trace(
    network: nn.Module, example: Tensor, opaque: frozenset[str] = frozenset()
) -> fx.GraphModule:
    """The operations of `network` on `example` `[N, ...]`, a copy that shares no weights.

    Only the shape and type of `example` count.  Each node holds in `meta["example"]` what it
    gives: tensors without storage, other values as they are.  `opaque`: modules that are not
    looked into.
    """
    example = without_data(example)
    skeleton, network = skeleton_of(network), copy.deepcopy(network)
    mode = {name: module.training for name, module in network.named_modules()}
    graph = _recorded(network, False, _Tracer(skeleton, example, opaque))
    try:
        _restore_training_flags(graph, _recorded(network, True, _Tracer(skeleton, example, opaque)))
    except UserError:  # it cannot be recorded in training mode; nothing to restore
        pass
    for node in graph.nodes:
        _write_sizes_here(network, node)
    traced = fx.GraphModule(network, graph, class_name=type(network).__name__)
    _Examples(skeleton, traced).run_once(example)
    for name, module in traced.named_modules():
        module.training = mode.get(name, mode[""])
    return traced


def _recorded(network: nn.Module, training: bool, tracer: _Tracer) -> fx.Graph:
    inputs = [p for p in inspect.signature(network.forward).parameters.values()]
    if sum(p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD for p in inputs) != 1:
        raise UserError(
            f"{type(network).__name__} takes {len(inputs)} inputs; a network to be pruned takes "
            "one tensor of images (wrap it in a module that makes the others)"
        )
    try:
        return tracer.trace(network.train(training))
    except UserError:
        raise
    except Exception as error:  # whatever the network's own Python raises under the tracer
        raise UserError(
            f"{type(network).__name__} cannot be read as a graph: {str(error).splitlines()[0]}; "
            "protect the part that does this (extract.protect) or rewrite it"
        ) from error


def _write_sizes_here(network: nn.Module, node: fx.Node) -> None:
    """Forms that a cut network can have too: sizes of `nn.Unflatten` stand in the call, and no
    view demands a memory layout."""
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    node.meta.pop("is_wrapped", None)  # else the code of the traced network asks for the same
    if isinstance(module, nn.Unflatten) and isinstance(module.dim, int):
        node.op, node.target = "call_method", "unflatten"
        node.args = (node.args[0], module.dim, tuple(module.unflattened_size))
    elif node.op == "call_method" and node.target == "view":
        if not isinstance(node.args[1], torch.dtype):
            node.target = "reshape"


class _Examples(fx.Interpreter):
    """Writes `meta["example"]` into every node of a traced network."""

    def __init__(self, skeleton: nn.Module, traced: fx.GraphModule) -> None:
        super().__init__(skeleton, graph=traced.graph)
        self._traced = traced

    def fetch_attr(self, target: str) -> Any:
        try:
            return super().fetch_attr(target)
        except RuntimeError:  # a constant that tracing has made
            return without_data(attribute(self._traced, target))

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = without_data(super().run_node(n))
        except NEEDS_DATA as error:
            if is_about_data(error):
                raise _depends_on_data(n, type(self._traced).__name__) from error
            raise
        n.meta["example"] = value
        return value

    def run_once(self, example: Tensor) -> None:
        try:
            with torch.no_grad(), torch.device("meta"):
                self.run(example)
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the network does not run on an input of shape {tuple(example.shape)}: "
                f"{str(error).splitlines()[0]}; give an input it accepts"
            ) from error


def _restore_training_flags(graph: fx.Graph, training: fx.Graph) -> None:
    """Where the two traces differ by `False` and `True` alone, that is `self.training` again."""
    pairs = list(zip(graph.nodes, training.nodes, strict=False))
    if len(graph.nodes) != len(training.nodes) or any(
        (a.op, a.target) != (b.op, b.target) for a, b in pairs
    ):
        return
    flag = None
    for node, twin in pairs:
        for place, (old, new) in _differences(node, twin):
            if old is not False or new is not True:
                continue
            if flag is None:
                with graph.inserting_before(next(iter(graph.nodes))):
                    flag = graph.create_node("get_attr", "training")
                first = next(n for n in graph.nodes if n.op == "placeholder")
                first.append(flag)
            if isinstance(place, int):
                node.update_arg(place, flag)
            else:
                node.update_kwarg(place, flag)


def _differences(node: fx.Node, twin: fx.Node) -> Iterator[tuple[int | str, tuple[Any, Any]]]:
    for i, (a, b) in enumerate(zip(node.args, twin.args, strict=False)):
        if isinstance(a, bool) and a is not b:
            yield i, (a, b)
    for key in node.kwargs:
        a, b = node.kwargs[key], twin.kwargs.get(key)
        if isinstance(a, bool) and a is not b:
            yield key, (a, b)


def operation_name(node: fx.Node) -> str:
    """`conv2d`, `add`, `BatchNorm2d` …: what a node does, in one word."""
    if node.op == "call_module":
        return type(node.graph.owning_module.get_submodule(str(node.target))).__name__
    if node.op in ("call_method", "get_attr"):
        return str(node.target)
    return getattr(node.target, "__name__", str(node.target))


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
