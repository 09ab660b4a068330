"""A symbolic tracer that answers questions which follow from the shapes alone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.graph.tracing.fx_utils import attribute, operation_name, scope_of
from gnnrl.graph.tracing.meta import NEEDS_DATA, is_about_data, run_part, without_data

_FACTORIES = (torch.zeros, torch.ones, torch.full, torch.arange)


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

    # What is written in place is recorded as such: other names of the tensor see it.
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class Recorder(fx.Tracer):
    """A tracer that knows the shape of everything recorded so far.

    skeleton: the network without data, on which recorded prefixes run.
    """

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
            raise depends_on_data(node, type(self.root).__name__)
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
                raise depends_on_data(node, type(self.root).__name__) from error
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
            hollow, whole = (m.get_submodule(str(node.target)) for m in (self._skeleton, self.root))
            if node.target in self._opaque:
                return run_part(hollow, whole, args, kwargs)
            return hollow.forward(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def depends_on_data(node: fx.Node, root: str) -> UserError:
    """The error for a network whose operations depend on what it reads."""
    return UserError(
        f"{scope_of(node) or root}: what the network does depends on the data "
        f"({operation_name(node)!r}), so there is no one graph of it; rewrite that part without "
        "it or protect it (extract.protect)"
    )
