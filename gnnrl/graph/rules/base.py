"""Rules: what each kind of operation does to channels.

A rule sets `flow.layouts[node]` and, for operations with weights, `flow.layers[node]` and the
axes of the parameters.  An operation that stands in no table is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import Tensor, fx

from gnnrl.graph.rules.flow import Flow, Folded, Layer, Layout, Weights, is_tensor, shape_of
from gnnrl.tracing.fx_utils import on_images

Rule = Callable[[Flow, fx.Node], None]


def tensors_read(node: fx.Node) -> list[fx.Node]:
    """Tensors, and tuples of them, among the inputs, in order."""
    return [n for n in node.all_input_nodes if gives_tensors(n)]


def gives_tensors(node: fx.Node) -> bool:
    """Whether a node gives a tensor or several."""
    value = node.meta["example"]
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and bool(value) and isinstance(value[0], Tensor)
    )


def holds_tensors(value: Any) -> bool:
    """Whether there is a tensor in a value: in a dictionary, a list, the fields of an object."""
    if isinstance(value, Mapping):
        return any(holds_tensors(v) for v in value.values())
    if isinstance(value, tuple | list | set):
        return any(holds_tensors(v) for v in value)
    if isinstance(value, Tensor):
        return True
    return is_dataclass(value) and any(holds_tensors(v) for v in vars(value).values())


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, however it was passed; nodes that are numbers give their number."""
    value = node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
    return fx.node.map_arg(value, lambda n: n if is_tensor(n) else n.meta["example"])


def placeholder(flow: Flow, node: fx.Node) -> None:
    """What the network reads is kept: the colours of an image."""
    flow.layouts[node] = None
    if is_tensor(node) and len(shape_of(node)) > 1:
        flow.layouts[node] = Layout(1, flow.couplings.fixed(shape_of(node)[1]))


def output(flow: Flow, node: fx.Node) -> None:
    """What the network gives is kept."""
    flow.layouts[node] = None
    for read in node.all_input_nodes:
        flow.pin(read)


def weights(flow: Flow, node: fx.Node) -> None:
    """A parameter in the network's own code: one long axis tells its channels apart."""
    flow.layouts[node] = None
    if not is_tensor(node):
        return
    long = [k for k, size in enumerate(shape_of(node)) if size > 1]
    path = flow.one_name(str(node.target))
    if len(long) == 1:
        labels = flow.axes.get((path, long[0]))
        if labels is None:
            labels = flow.couplings.fresh(shape_of(node)[long[0]])
            flow.bind(path, long[0], labels)
        flow.layouts[node] = Layout(long[0], labels)
    elif long:
        flow.layouts[node] = Weights(path, ((node, False),))


@dataclass(frozen=True)
class Refused:
    """The rule for what cannot be cut, and why."""

    why: str

    def __call__(self, flow: Flow, node: fx.Node) -> None:
        reads = [flow.layouts.get(n) for n in tensors_read(node)]
        if on_images(node) and any(isinstance(r, Layout | Folded | tuple) for r in reads):
            flow.refuse(node, self.why)
        left_whole(flow, node)


def left_whole(flow: Flow, node: fx.Node) -> None:
    """An operation, or a module that is not looked into: what goes in and comes out is kept."""
    for read in node.all_input_nodes:
        flow.pin(read)
    flow.layouts[node] = None
    if node.op == "call_module":
        parameters = dict(flow.traced.get_submodule(str(node.target)).named_parameters())
        names = tuple(flow.one_name(f"{node.target}.{name}") for name in parameters)
        flow.layers[node] = Layer(str(node.target), None, names)
