"""Layers that can be taken out of a network, and the network and graph without them.

A part is a layer or a block, by its dotted name, or one operation that has no module of its own
(`relu(x)` in a block's code; a call of a module that is called several times), by the name of its
node.  It is removable when it reads one tensor, gives one tensor of the same shape, and nothing
else in the network reads a tensor inside it: what follows then reads what the part read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import fx

from gnnrl.errors import UserError
from gnnrl.graph.coupling import Couplings, Units, resolve
from gnnrl.graph.graph import Channels, ComputationalGraph, Node, Parameter
from gnnrl.graph.operations import operation_of
from gnnrl.tracing.inplace import stop_writing

Labels = Callable[[Channels], np.ndarray]


def removable(graph: ComputationalGraph) -> tuple[str, ...]:
    """Names of the parts that can be removed, in order of execution, outer before inner.

    Protected parts and parts without any operation are left out.
    """
    return tuple(
        name
        for name, part in members(graph).items()
        if _ends(graph, part) is not None and not _protected(graph, name, part)
    )


def members(graph: ComputationalGraph) -> dict[str, tuple[Node, ...]]:
    """Operations of each part, in order of execution, outer parts before inner ones."""
    named: dict[str, list[Node]] = {}
    for node in graph.nodes:
        names = node.layer.split(".") if node.layer else []
        for depth in range(1, len(names) + 1):
            named.setdefault(".".join(names[:depth]), []).append(node)
    alone = {name for name, part in named.items() if len(part) == 1}
    parts = dict(named)
    parts |= {n.name: [n] for n in graph.nodes if n.name not in named and n.layer not in alone}
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    ordered = sorted(parts, key=lambda name: (place[parts[name][0].name], -len(parts[name])))
    return {name: tuple(parts[name]) for name in ordered}


def outermost(graph: ComputationalGraph, removed: Iterable[str]) -> tuple[str, ...]:
    """The parts that are in no other of those named: all that is removed with them."""
    parts = members(graph)
    inside = {name: {n.name for n in parts[name]} for name in removed}
    return tuple(
        name for name in inside if not any(inside[name] < inside[other] for other in inside)
    )


def removable_units(graph: ComputationalGraph) -> tuple[str, ...]:
    """Return the parts with weights that are in no other: blocks, and layers in no such block."""
    parts = parts_of(graph)
    return outermost(graph, [n for n in parts if any(node.positions for node in parts[n])])


def parts_of(graph: ComputationalGraph) -> dict[str, tuple[Node, ...]]:
    """Return the parts that are decided, with their operations, outer before inner.

    Layers, and blocks that hold more than layers which can be removed one by one.
    """
    every = members(graph)
    found: dict[str, tuple[Node, ...]] = {}
    sets: dict[frozenset[str], str] = {}
    for name in reversed(removable(graph)):  # inner before outer
        working = frozenset(n.name for n in every[name] if n.operation != "identity")
        below = frozenset().union(*(inner for inner in sets if inner < working))
        alone = len(every[name]) == 1 and not operation_of(every[name][0]).is_layer
        if working and not alone and working != below and working not in sets:
            sets[working] = name
            found[name] = every[name]
    return dict(reversed(found.items()))


def absent_layers(graph: ComputationalGraph, removed: Iterable[str]) -> set[str]:
    """The layers in the parts named."""
    names = list(removed)
    parts = members(graph) if names else {}
    return {node.layer for name in names for node in parts.get(name, ())}


def without(graph: ComputationalGraph, removed: Iterable[str]) -> ComputationalGraph:
    """The graph of the network from which the parts named were taken out.

    Channels that the parts read and those that they gave become the same channels.  Raises
    `UserError` for a part that cannot be removed.
    """
    links = _links(graph, removed)
    if not links:
        return graph
    gone = {n.name for link in links for n in link.part}
    stands_for = {link.after: link.before for link in links}
    by_name = {n.name: n for n in graph.nodes}
    couplings = Couplings()
    units = couplings.fresh(graph.num_units)
    fixed = couplings.fixed(1)

    def labels(channels: Channels) -> np.ndarray:
        return np.append(units, fixed)[channels.units]

    for link in links:
        read, made = by_name[link.before].channels, by_name[link.after].channels
        for given, other in ((read, made), (made, read)):
            if given is not None and other is None:
                couplings.pin(labels(given))
        if read is not None and made is not None:
            couplings.couple(labels(read), labels(made))

    nodes = [
        replace(n, inputs=tuple(dict.fromkeys(_source(stands_for, i) for i in n.inputs)))
        for n in graph.nodes
        if n.name not in gone
    ]
    filters = {n.layer: labels(n.filters) for n in nodes if n.filters is not None}
    found = resolve(couplings, dict(filters))
    used = {p for n in nodes for p in n.parameters} | _unowned(graph)
    return replace(
        graph,
        nodes=tuple(_renumbered(n, found, labels) for n in nodes),
        parameters={
            name: _renumbered_parameter(p, found, labels)
            for name, p in graph.parameters.items()
            if name in used
        },
        groups=found.groups,
    )


def take_out(traced: fx.GraphModule, graph: ComputationalGraph, removed: Iterable[str]) -> None:
    """Remove parts from a traced network, in place; nothing in it writes in place any more."""
    stands_for = {link.after: link.before for link in _links(graph, removed)}
    nodes = {n.name: n for n in traced.graph.nodes}
    for after in stands_for:
        nodes[after].replace_all_uses_with(nodes[_source(stands_for, after)])
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    stop_writing(traced)


@dataclass(frozen=True)
class _Link:
    """A part that is removed: what read `after` will read `before`."""

    part: tuple[Node, ...]
    before: str
    after: str


def _links(graph: ComputationalGraph, removed: Iterable[str]) -> list[_Link]:
    """What replaces the parts named; those inside of others are removed with them."""
    removed = sorted(set(removed))
    _check(graph, removed)
    parts = members(graph)
    ends = {name: _ends(graph, parts[name]) for name in outermost(graph, removed)}
    return [_Link(parts[name], *end) for name, end in ends.items() if end is not None]


def _source(stands_for: Mapping[str, str], name: str) -> str:
    """What stands in the place of an operation, through parts that follow each other."""
    while name in stands_for:
        name = stands_for[name]
    return name


def _check(graph: ComputationalGraph, removed: Iterable[str]) -> None:
    allowed = set(removable(graph)) if removed else set()
    for name in removed:
        if name not in allowed:
            raise UserError(
                f"part {name!r} cannot be removed: it must read one tensor and give one of the "
                f"same shape; removable here: {', '.join(sorted(allowed)[:6]) or 'nothing'}"
                f"{' …' if len(allowed) > 6 else ''}"
            )


def _protected(graph: ComputationalGraph, name: str, part: Iterable[Node]) -> bool:
    """Whether a part is protected, in one that is, or has one that is in it."""
    inside = {name, *(n.layer for n in part)}
    return any(
        each == p or each.startswith(f"{p}.") or p.startswith(f"{name}.")
        for p in graph.protected
        for each in inside
    )


def _ends(graph: ComputationalGraph, part: Sequence[Node]) -> tuple[str, str] | None:
    """The one operation that a part reads and the one of its own that others read."""
    inside = {n.name for n in part}
    shapes = {n.name: n.shape for n in graph.nodes}
    read = {i for n in part for i in n.inputs if i not in inside}
    given = {i for n in graph.nodes if n.name not in inside for i in n.inputs if i in inside}
    if not given:
        given = {part[-1].name}  # what the network answers
    if len(read) != 1 or len(given) != 1:
        return None
    before, after = read.pop(), given.pop()
    return (before, after) if shapes[before] == shapes[after] != () else None


def _unowned(graph: ComputationalGraph) -> set[str]:
    """Parameters that the network's own code reads."""
    return set(graph.parameters) - {p for n in graph.nodes for p in n.parameters}


def _renumbered(node: Node, units: Units, labels: Labels) -> Node:
    def again(channels: Channels) -> Channels:
        return Channels.of(channels.axis, units.of(labels(channels)))

    return replace(
        node,
        channels=node.channels and again(node.channels),
        filters=node.filters and again(node.filters),
        products=tuple((each, again(channels)) for each, channels in node.products),
    )


def _renumbered_parameter(parameter: Parameter, units: Units, labels: Labels) -> Parameter:
    channels = [Channels.of(c.axis, units.of(labels(c))) for c in parameter.channels]
    return replace(parameter, channels=tuple(c for c in channels if (c.units >= 0).any()))
