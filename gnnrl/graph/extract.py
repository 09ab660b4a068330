"""Network → ComputationalGraph."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from gnnrl.errors import UserError
from gnnrl.graph.coupling import Units, resolve
from gnnrl.graph.graph import Channels, ComputationalGraph, Node, Parameter
from gnnrl.graph.rules.base import gives_tensors
from gnnrl.graph.rules.flow import Flow, Layout, is_tensor, module_of, shape_of
from gnnrl.graph.rules.reshape import refuse_shared_writing
from gnnrl.graph.rules.table import look_up
from gnnrl.graph.rules.width_constants import settle_numbers
from gnnrl.graph.tracing.fx_utils import attribute, operation_name, scope_of
from gnnrl.graph.tracing.meta import run_part, skeleton_of
from gnnrl.graph.tracing.trace import trace


@dataclass(frozen=True)
class Analysis:
    """A traced network, where its channels flow, and the graph that says so.

    traced: a copy of the network as `torch.fx.GraphModule`.
    """

    traced: fx.GraphModule
    flow: Flow
    units: Units
    graph: ComputationalGraph


def extract(
    network: nn.Module, example_input: Tensor, protect: Iterable[str] = ()
) -> ComputationalGraph:
    """The computational graph of `network`, read on `example_input` `[N, C, H, W]`.

    protect: layers (or parts, by dotted name) whose channels must all stay; a part that cannot
    be read is not looked into when it is protected.  Raises `UserError` for a network with an
    operation that cannot be cut safely.
    """
    return analyse(network, example_input, protect).graph


def analyse(network: nn.Module, example_input: Tensor, protect: Iterable[str] = ()) -> Analysis:
    """The graph together with the traced network that surgery works on."""
    protected = tuple(sorted(set(protect)))
    modules = dict(network.named_modules())
    for name in protected:
        if name not in modules:
            raise UserError(
                f"extract.protect names {name!r}, which the network does not have (its parts: "
                f"{', '.join(n for n, _ in network.named_children())})"
            )
    opaque = frozenset(n for n in protected if _is_compound(modules[n]))
    # a batch of two: an axis of length one would be taken for something it is not
    example = example_input.new_empty((2, *example_input.shape[1:]), device="meta")
    traced = trace(network, example, opaque)
    flow = Flow(traced, frozenset(protected))
    kinds: dict[fx.Node, str] = {}
    for node in traced.graph.nodes:
        kinds[node], rule = look_up(node, protected)
        if kinds[node] in ("input", "output", "parameter") or gives_tensors(node):
            settle_numbers(flow, node)
            refuse_shared_writing(flow, node)
            if node.target not in (operator.getitem, getattr):
                for read in node.all_input_nodes:
                    if isinstance(flow.layouts.get(read), tuple):
                        flow.pin(read)  # several tensors handed on as they are
            rule(flow, node)
        else:
            flow.layouts[node] = None
    filters = _filters(flow)
    units = resolve(flow.couplings, filters)
    nodes = _nodes(flow, units, kinds)
    graph = ComputationalGraph(
        input_shape=tuple(example_input.shape[1:]),
        nodes=nodes,
        parameters=_parameters(flow, units, nodes),
        groups=units.groups,
        protected=protected,
    )
    return Analysis(traced, flow, units, graph)


def _is_compound(module: nn.Module) -> bool:
    """Whether a protected module is one that would be looked into, or has parts."""
    return not type(module).__module__.startswith("torch.nn") or (
        next(module.children(), None) is not None
    )


def _filters(flow: Flow) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for layer in flow.layers.values():
        if layer.filters is not None:
            found.setdefault(layer.name, layer.filters)
    return found


def _nodes(flow: Flow, units: Units, kinds: Mapping[fx.Node, str]) -> tuple[Node, ...]:
    shown = [n for n in flow.traced.graph.nodes if n.op != "get_attr" and _shown(n)]
    return tuple(_node(flow, units, kinds[n], n) for n in shown)


def _shown(node: fx.Node) -> bool:
    """Tensors are shown; numbers and unused parts of a split are not."""
    return is_tensor(node) and node.op != "output"


def _node(flow: Flow, units: Units, kind: str, node: fx.Node) -> Node:
    layer, layout = flow.layers.get(node), flow.layouts.get(node)
    filters = layer.filters if layer is not None else None
    return Node(
        name=node.name,
        layer=layer.name if layer is not None else scope_of(node),
        operation=kind,
        inputs=tuple(dict.fromkeys(_sources(node))),
        shape=shape_of(node)[1:],
        attributes=_attributes(flow, node),
        parameters=layer.parameters if layer is not None else (),
        positions=layer.positions if layer is not None else 0,
        channels=Channels.of(layout.axis, units.of(layout.labels))
        if isinstance(layout, Layout)
        else None,
        filters=None if filters is None else Channels.of(0, units.of(filters)),
        flops=_flops_inside(node) if kind == "opaque" else 0,
    )


def _sources(node: fx.Node) -> list[str]:
    """Shown nodes that a node reads, looking through parts of a split."""
    names: list[str] = []
    for read in node.all_input_nodes:
        if is_tensor(read):
            names += [read.name] if read.op != "get_attr" else []
        elif gives_tensors(read):
            names += _sources(read)
    return names


def _attributes(flow: Flow, node: fx.Node) -> dict[str, Any]:
    """What the operation was built with, as far as JSON can hold it."""
    found: dict[str, Any] = {"type": operation_name(node)}
    if node.op == "call_module":
        module = module_of(node)
        for name in ("kernel_size", "stride", "padding", "dilation", "groups", "num_groups"):
            value = getattr(module, name, None)
            if isinstance(value, int | str):
                found[name] = value
            elif isinstance(value, tuple) and all(isinstance(v, int) for v in value):
                found[name] = list(value)
    return found


def _flops_inside(node: fx.Node) -> int:
    """Multiply-accumulates of a part that is not looked into, counted by PyTorch."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["example"])
    module = skeleton_of(module_of(node))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run_part(module, module_of(node), args, kwargs)
    first = next(n for n in node.all_input_nodes if is_tensor(n))
    return counter.get_total_flops() // 2 // len(first.meta["example"])


def _parameters(flow: Flow, units: Units, nodes: tuple[Node, ...]) -> dict[str, Parameter]:
    trainable = dict(flow.traced.named_parameters())
    axes: dict[str, list[Channels]] = {}
    for (path, axis), labels in flow.axes.items():
        of = units.of(labels)
        if (of >= 0).any():
            axes.setdefault(path, []).append(Channels.of(axis, of))
    read = {
        flow.one_name(str(n.target))
        for n in flow.traced.graph.nodes
        if n.op == "get_attr" and is_tensor(n)
    }
    names = {name for node in nodes for name in node.parameters} | read
    return {
        name: Parameter(
            tuple(attribute(flow.traced, name).shape),
            tuple(sorted(axes.get(name, ()), key=lambda c: c.axis)),
            name not in trainable,
        )
        for name in sorted(names)
        if isinstance(attribute(flow.traced, name), Tensor)
    }
