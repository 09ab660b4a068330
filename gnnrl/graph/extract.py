"""Network → ComputationalGraph."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.graph.coupling import Units, resolve
from gnnrl.graph.graph import Channels, ComputationalGraph, Node, Parameter
from gnnrl.graph.rules.base import (
    Rule,
    gives_tensors,
    holds_tensors,
    left_whole,
    tensors_read,
)
from gnnrl.graph.rules.flow import (
    EXAMPLE_BATCH,
    Flow,
    Layout,
    Product,
    Refusal,
    WritesInPlace,
    is_tensor,
    shape_of,
)
from gnnrl.graph.rules.reshape import refuse_shared_writing
from gnnrl.graph.rules.table import look_up
from gnnrl.graph.rules.width_constants import settle_numbers
from gnnrl.tracing.check import is_readable_layer, takes_one_size
from gnnrl.tracing.fx_utils import attribute, module_of, operation_name, scope_of
from gnnrl.tracing.joined import finished, flops_of_joined
from gnnrl.tracing.read import check_read, read_network
from gnnrl.tracing.trace import flops_of, named_inputs


@dataclass(frozen=True)
class Analysis:
    """A traced network, where its channels flow, and the graph that says so.

    traced: a copy of the network as `torch.fx.GraphModule`.
    """

    traced: fx.GraphModule
    flow: Flow
    units: Units
    graph: ComputationalGraph

    @property
    def network(self) -> nn.Module:
        """The copy as it is run: of a network whose own code is no graph, its own code."""
        shell = self.traced.meta.get("shell")
        return self.traced if shell is None else shell.network


def extract(
    network: nn.Module,
    example_input: Any,
    protect: Iterable[str] = (),
    embedding: bool = False,
    attention: str = "heads",
) -> ComputationalGraph:
    """The computational graph of `network`, read on `example_input` `[N, C, H, W]`.

    example_input: one tensor; of a network with several inputs a tuple, or a dictionary by their
    names.  protect: layers (or parts, by dotted name) whose channels are all kept; a part is not
    traced when it is protected, of a layer the filters are kept.  embedding: also prune the width
    of transformers, which layer norms see, so that it changes what they give.  attention: prune
    whole `heads`, or the `width` of the heads.  Parts without a rule are left whole
    (`ComputationalGraph.whole`).
    Raises `UserError` where the network's own code cannot be read.
    """
    analysis = analyse(network, example_input, protect, embedding, attention)
    check_read(network, analysis.traced, example_input)
    one_size = takes_one_size(network, analysis.traced, example_input)
    return replace(analysis.graph, one_size=one_size)


def analyse(
    network: nn.Module,
    example_input: Any,
    protect: Iterable[str] = (),
    embedding: bool = False,
    attention: str = "heads",
) -> Analysis:
    """The graph together with the traced network that surgery works on."""
    protected = tuple(sorted(set(protect)))
    modules = dict(network.named_modules())
    for name in protected:
        if name not in modules:
            raise UserError(
                f"extract.protect names {name!r}, which the network does not have (its parts: "
                f"{', '.join(n for n, _ in network.named_children())})"
            )
    if attention not in ATTENTION:
        raise UserError(f"extract.attention must be one of {', '.join(ATTENTION)}, got {attention}")
    opaque = frozenset(n for n in protected if _is_compound(modules[n]))
    inputs = named_inputs(network, example_input)
    if not inputs or not all(isinstance(v, Tensor) and v.ndim for v in inputs.values()):
        raise UserError(
            "every input of the example must be a tensor whose first axis is the batch, got "
            f"{ {k: type(v).__name__ for k, v in inputs.items()} }; wrap the network in a module "
            "that takes tensors"
        )
    one, example = (
        {k: v.new_empty((n, *v.shape[1:]), device="meta") for k, v in inputs.items()}
        for n in (1, EXAMPLE_BATCH)
    )
    settings = frozenset(protected), embedding, attention
    flow, kinds, whole = _flow(network, example, opaque, settings)
    units = resolve(flow.couplings, _filters(flow))
    nodes = _nodes(flow, units, kinds, one)
    first, *others = inputs.values()
    graph = ComputationalGraph(
        input_shape=tuple(first.shape[1:]),
        nodes=nodes,
        parameters=_parameters(flow, units, nodes),
        groups=units.groups,
        protected=protected,
        whole=whole,
        inputs={}
        if first.is_floating_point() and not others
        else {k: (str(v.dtype).removeprefix("torch."), *v.shape[1:]) for k, v in inputs.items()},
        settings={k: v for k, v, usual in (("embedding", embedding, False),
                                           ("attention", attention, "heads")) if v != usual},
    )  # fmt: skip
    return Analysis(flow.traced, flow, units, graph)


ATTENTION = ("heads", "width")


def _flow(
    network: nn.Module,
    example: Mapping[str, Any],
    opaque: frozenset[str],
    settings: tuple[frozenset[str], bool, str],
) -> tuple[Flow, dict[fx.Node, str], dict[str, str]]:
    """Where channels flow, the kind of each operation, and what is left whole and why.

    An operation without a rule is left whole by itself; the smallest module around it where it
    writes into what it reads.
    """
    refused: dict[str, str] = {}
    while True:
        traced = read_network(network, example, opaque | refused.keys())
        left = opaque | refused.keys() | traced.meta["whole"].keys()
        flow, kinds, again = Flow(traced, *settings), {}, False
        for node in traced.graph.nodes:
            kinds[node], rule = look_up(node)
            if node.op == "call_module" and node.target in left:
                kinds[node], rule = "opaque", left_whole
            try:
                _apply(flow, node, rule)
            except Refusal as refusal:
                scope = scope_of(node)
                if isinstance(refusal, WritesInPlace):
                    if not scope or scope in refused:
                        raise UserError(
                            f"{scope or type(network).__name__}: no safe way to cut channels "
                            f"through {refusal.why}; move this code into a module of its own, "
                            "which is then left whole, or rewrite it"
                        ) from None
                    refused[scope], again = refusal.why, True
                flow.note(node, refusal.why)
                kinds[node] = "opaque"
                left_whole(flow, node)
        if not again:
            whole = {**traced.meta["whole"], **flow.whole, **refused}
            return flow, kinds, dict(sorted(whole.items()))


def _apply(flow: Flow, node: fx.Node, rule: Rule) -> None:
    """Fill in what the rule says of one operation."""
    effects = node.target in (operator.setitem, finished)
    if node.op in ("placeholder", "output", "get_attr") or effects or gives_tensors(node):
        settle_numbers(flow, node)
        refuse_shared_writing(flow, node)
        if node.target not in (operator.getitem, getattr):
            for read in node.all_input_nodes:
                if isinstance(flow.layouts.get(read), tuple):
                    flow.pin(read)  # several tensors handed on as they are
        rule(flow, node)
    elif holds_tensors(node.meta["example"]):
        left_whole(flow, node)  # an object, a dictionary: what is in it is kept
    else:
        flow.layouts[node] = None


def _is_compound(module: nn.Module) -> bool:
    """Whether a protected module has parts, or code of its own that is more than a layer's."""
    if next(module.children(), None) is not None:
        return True
    return not type(module).__module__.startswith("torch.nn") and not is_readable_layer(module)


def _filters(flow: Flow) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for layer in flow.layers.values():
        if layer.filters is not None:
            found.setdefault(layer.name, layer.filters)
    return found


def _nodes(
    flow: Flow, units: Units, kinds: Mapping[fx.Node, str], one: Mapping[str, Any]
) -> tuple[Node, ...]:
    """one: the example, of one image, on which what is left whole is counted."""
    shown = [n for n in flow.traced.graph.nodes if n.op != "get_attr" and _shown(n)]
    opaque = [n for n in shown if kinds[n] == "opaque"]
    if "shell" in flow.traced.meta:
        flops = {n: k // EXAMPLE_BATCH for n, k in flops_of_joined(flow.traced, opaque).items()}
    else:
        across = [n for n in shown if _may_be_across_images(flow, n)]
        flops = flops_of(flow.traced, one, [*opaque, *across])
        for node in across:
            flow.products[node] = _scaled(flow.products[node], flops.pop(node))
    return tuple(_node(flow, units, kinds[n], n, flops.get(n, 0)) for n in shown)


def _may_be_across_images(flow: Flow, node: fx.Node) -> bool:
    """Whether it multiplies matrices: where their rows are images, it costs more for each image
    the more there are."""
    return node in flow.products and all(len(shape_of(read)) < 3 for read in tensors_read(node))


def _scaled(products: tuple[Product, ...], total: int) -> tuple[Product, ...]:
    """Products of one operation that cost `total` together."""
    known = sum(p.each * (1 if p.labels is None else len(p.labels)) for p in products)
    return tuple(Product(p.each * total // known, p.labels) for p in products)


def _shown(node: fx.Node) -> bool:
    """Tensors are shown; numbers and unused parts of a split are not."""
    alone = node.op == "call_module" or node.target is finished
    return node.op != "output" and (is_tensor(node) or alone)


def _node(flow: Flow, units: Units, kind: str, node: fx.Node, flops: int) -> Node:
    layer, layout = flow.layers.get(node), flow.layouts.get(node)
    filters = layer.filters if layer is not None else None
    counted = [(p.each, p.labels) for p in flow.products.get(node, ())]
    return Node(
        name=node.name,
        layer=layer.name if layer is not None else scope_of(node),
        operation=kind,
        inputs=tuple(dict.fromkeys(_sources(node))),
        shape=shape_of(node)[1:] if is_tensor(node) else (),
        attributes=_attributes(flow, node),
        parameters=layer.parameters if layer is not None else (),
        positions=layer.positions if layer is not None else 0,
        channels=Channels.of(layout.axis, units.of(layout.labels))
        if isinstance(layout, Layout) and layout.axis > 0
        else None,
        filters=None if filters is None else Channels.of(0, units.of(filters)),
        flops=flops + sum(each for each, labels in counted if labels is None),
        products=tuple((n, Channels.of(0, units.of(x))) for n, x in counted if x is not None),
    )


def _sources(node: fx.Node) -> list[str]:
    """Shown nodes that a node reads, looking through parts of a split."""
    names: list[str] = []
    for read in node.all_input_nodes:
        if _shown(read):
            names += [read.name] if read.op != "get_attr" else []
        elif holds_tensors(read.meta["example"]):
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
