"""A symbolic tracer that answers questions which follow from the shapes alone."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, ItemsView, Iterator, Mapping
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError, first_line, pass_on_shortage
from gnnrl.tracing.attention import attend
from gnnrl.tracing.fx_utils import attribute, call, operation_name, scope_of
from gnnrl.tracing.meta import NEEDS_DATA, is_about_data, nowhere, run_part, without_data

_FACTORIES = (torch.zeros, torch.ones, torch.full, torch.arange, torch.tensor, torch.finfo)
_SCALARS = tuple(
    getattr(torch, name)
    for name in "pow where remainder float_power fmod floor_divide bitwise_and bitwise_or "
    "bitwise_xor bitwise_left_shift bitwise_right_shift copysign xlogy isin searchsorted "
    "bucketize result_type clamp clamp_min clamp_max clip rsub lerp".split()
)
"""Functions that take a tensor or a number in one place: they are recorded before PyTorch looks
into what only says that it is a tensor."""
_OPERATIONS = ("torch.", "torchvision.ops.")
"""Where functions come from that are operations; other functions are read like the network."""


class Unreadable(UserError):
    """A part of a network (dotted name; empty: its own code) of which there is no one graph."""

    def __init__(self, part: str, why: str, text: str) -> None:
        super().__init__(text)
        self.part, self.why = part, why


class _ShapeProxy(fx.Proxy):
    """A proxy which answers questions about sizes by running what was recorded so far."""

    tracer: Recorder

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # so that `isinstance(x, Tensor)` is answered as for a tensor
        known = self.tracer.known_or_none(self.node) if type(self) is _ShapeProxy else None
        return Tensor if isinstance(known, Tensor) else type(self)

    def __getattr__(self, k: str) -> _ShapeAttribute:
        if k.startswith("_"):  # PyTorch's own marks, such as that of a parameter
            raise AttributeError(k)
        return _ShapeAttribute(self, k)

    def items(self) -> Any:
        known = self.tracer.known(self.node)
        if isinstance(known, Mapping):
            whole: Any = self
            return ItemsView({key: whole[key] for key in known})
        return self.tracer.create_proxy("call_method", "items", (self,), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __len__(self) -> int:
        return len(self.tracer.known(self.node))

    def __index__(self) -> int:
        return self.tracer.number(self.node)

    def __int__(self) -> int:
        return int(self.tracer.number(self.node))

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


class _ShapeAttribute(_ShapeProxy, fx.proxy.Attribute):
    """`x.shape` and the like."""


class _Several(tuple):
    """What a marked function gave: several values."""

    node = SimpleNamespace(meta={})
    """`torch.fx` notes on it that its function was marked."""


class Recorder(fx.Tracer):
    """A tracer that knows the shape of everything recorded so far.

    skeleton: the network without data, on which recorded prefixes run.  inputs: what the network
    is called with, by name.  opaque: modules that are not traced.  unread: modules that
    could not be traced, and why; filled while recording.
    """

    def __init__(
        self, skeleton: nn.Module, inputs: Mapping[str, Any], opaque: frozenset[str]
    ) -> None:
        super().__init__(autowrap_functions=_FACTORIES + _SCALARS)
        self._autowrap_search.append(torch)  # `torch.zeros(n, c)` is recorded if n or c is
        self._skeleton, self._inputs, self._opaque = skeleton, inputs, opaque
        self.unread: dict[str, str] = {}
        self._values: dict[fx.Node, Any] = {}
        self._running = False
        self._states: dict[nn.Module, dict[str, Any]] = {}

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Record a pass; what it leaves on the network's modules is taken back."""
        self._states = {module: dict(vars(module)) for module in root.modules()}
        try:
            return super().trace(root, concrete_args)
        finally:
            self._take_back(root)

    def _take_back(self, part: nn.Module) -> None:
        for module in part.modules():
            for name, value in [*vars(module).items()]:
                if type(value) in (_ShapeProxy, _ShapeAttribute):
                    before = self._states.get(module, {})
                    vars(module).update({name: before[name]} if name in before else {})
                    if name not in before:
                        del vars(module)[name]

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """One placeholder for each input that is given; the others keep their defaults."""
        given = {name: self.create_proxy("placeholder", name, (), {}) for name in self._inputs}
        return functools.partial(root_fn, **given), [self.root]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self._opaque or module_qualified_name in self.unread:
            return True
        if type(m).__module__ == "torch.nn.modules.transformer":
            return False
        written_out = isinstance(m, nn.MultiheadAttention)
        return not written_out and super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _ShapeProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        return a.node if type(a) is _ShapeProxy else super().create_arg(a)

    def create_proxy(  # type: ignore[override]
        self, kind: str, target: Any, args: Any, kwargs: Any, **rest: Any
    ) -> Any:
        """Record an operation; a function that its author marked as one is read if it can be."""
        own = isinstance(target, FunctionType) and not f"{target.__module__}.".startswith(
            _OPERATIONS
        )
        if kind == "call_function" and own:
            last = next(iter(reversed(self.graph.nodes)))
            try:
                found = target(*args, **kwargs)
                if type(found) is _ShapeProxy:
                    return found
                if type(found) is tuple and any(type(part) is _ShapeProxy for part in found):
                    return _Several(found)
            except Exception:  # whatever its Python raises under the tracer
                pass
            self._forget(last)
        return super().create_proxy(kind, target, args, kwargs, **rest)

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
        """Record what a module does, or, where that cannot be read, that it is called."""
        if self._running:
            return forward(*args, **kwargs)
        name = self.path_of_module(m)
        last, depth = next(iter(reversed(self.graph.nodes))), len(self.module_stack)
        if (
            isinstance(m, nn.MultiheadAttention)
            and type(m).forward is nn.MultiheadAttention.forward
        ):
            forward = functools.partial(attend, m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # whatever the module's own Python raises under the tracer
            pass_on_shortage(error)
            while len(self.module_stack) > depth:
                self.module_stack.popitem(last=True)
            if self.is_leaf_module(m, name):
                raise
            self._forget(last)
            self._take_back(m)
            self.unread[name] = getattr(error, "why", first_line(error))
            return super().call_module(m, forward, args, kwargs)

    def _forget(self, last: fx.Node) -> None:
        """Erase what was recorded after a node."""
        for node in reversed(self.graph.nodes):
            if node is last:
                return
            self._values.pop(node, None)
            self.graph.erase_node(node)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.number(obj.node))

    def iter(self, obj: Any) -> Iterator[Any]:
        known = self.known(obj.node)
        return iter(known) if isinstance(known, Mapping) else (obj[i] for i in range(len(known)))

    def keys(self, obj: fx.Proxy) -> Any:
        known = self.known(obj.node)
        return known.keys() if isinstance(known, Mapping) else super().keys(obj)

    def number(self, node: fx.Node) -> Any:
        """The value of a node that depends on shapes only."""
        value = self.known(node)
        if isinstance(value, Tensor):
            raise depends_on_data(node, self._here(node), type(self.root).__name__)
        return value

    def _here(self, node: fx.Node) -> str:
        return self.scope.module_path or scope_of(node)

    def known_or_none(self, node: fx.Node) -> Any:
        try:
            return self.known(node)
        except Exception:  # the question is put again where the answer matters
            return None

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
                raise depends_on_data(node, self._here(node), type(self.root).__name__) from error
            finally:
                self._running = False
        return self._values[node]

    def _run(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "placeholder":
            return self._inputs[str(node.target)]
        if node.op == "get_attr":
            return attribute(self.root, str(node.target))
        if node.op == "call_module":
            hollow, whole = (m.get_submodule(str(node.target)) for m in (self._skeleton, self.root))
            if node.target in self._opaque or node.target in self.unread:
                return run_part(hollow, whole, args, kwargs)
            return hollow.forward(*args, **kwargs)
        if node.target is getattr and args[1] == "device":
            return next((p.device for p in self.root.parameters()), torch.device("cpu"))
        return call(node, *nowhere(node, args, kwargs))


def depends_on_data(node: fx.Node, part: str, root: str) -> Unreadable:
    """The error for a part whose operations depend on what it reads."""
    why = f"what it does depends on the data ({operation_name(node)!r})"
    return Unreadable(
        part,
        why,
        f"{part or root}: {why}, so there is no one graph of it; move that code into a module of "
        "its own, which is then left whole, or rewrite it",
    )
