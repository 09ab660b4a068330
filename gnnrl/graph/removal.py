"""Layers that can be taken out of a network, and the network and graph without them.

A part (a layer, or a block by its dotted name) is removable when it reads one tensor, gives one
tensor of the same shape, and nothing else in the network looks into it: what follows then simply
reads what the part read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from torch import fx

from gnnrl.errors import UserError
from gnnrl.graph.couplings import Couplings, Units, resolve
from gnnrl.graph.graph import Channels, ComputationalGraph, Node, Parameter

Labels = Callable[[Channels], np.ndarray]


def removable(graph: ComputationalGraph) -> tuple[str, ...]:
    """Dotted names of the parts that can be removed, in order of execution, outer before inner.

    Protected parts and parts without any operation are left out.
    """
    members = _members(graph)
    found = [name for name, part in members.items() if _ends(graph, part) is not None]
    protected = graph.protected
    return tuple(
        name
        for name in found
        if not any(
            name == p or p.startswith(f"{name}.") or name.startswith(f"{p}.") for p in protected
        )
    )


def without(graph: ComputationalGraph, removed: Iterable[str]) -> ComputationalGraph:
    """The graph of the network from which the parts named were taken out.

    Channels that the parts read and those that they gave become the same channels.  Raises
    `UserError` for a part that cannot be removed.
    """
    removed = sorted(set(removed))
    if not removed:
        return graph
    _check(graph, removed)
    members = _members(graph)
    by_name = {n.name: n for n in graph.nodes}
    couplings = Couplings()
    units = couplings.fresh(graph.num_units)
    fixed = couplings.fixed(1)

    def labels(channels: Channels) -> np.ndarray:
        return np.append(units, fixed)[channels.units]

    stands_for: dict[str, str] = {}
    gone: set[str] = set()
    for name in removed:
        before, after = _ends(graph, members[name])
        stands_for[after] = before
        gone |= {n.name for n in members[name]}
        read, made = by_name[before].channels, by_name[after].channels
        for given, other in ((read, made), (made, read)):
            if given is not None and other is None:
                couplings.pin(labels(given))
        if read is not None and made is not None:
            couplings.couple(labels(read), labels(made))

    def source(name: str) -> str:
        while name in stands_for:
            name = stands_for[name]
        return name

    nodes = [
        replace(n, inputs=tuple(dict.fromkeys(source(i) for i in n.inputs)))
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
    """Remove parts from a traced network, in place."""
    _check(graph, removed)
    members = _members(graph)
    nodes = {n.name: n for n in traced.graph.nodes}
    for name in sorted(set(removed), key=list(members).index, reverse=True):
        before, after = _ends(graph, members[name])
        nodes[after].replace_all_uses_with(nodes[before])
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()


def _check(graph: ComputationalGraph, removed: Iterable[str]) -> None:
    allowed = set(removable(graph))
    for name in removed:
        if name not in allowed:
            raise UserError(
                f"part {name!r} cannot be removed: it must read one tensor and give one of the "
                f"same shape; removable here: {', '.join(sorted(allowed)[:6]) or 'nothing'}"
                f"{' …' if len(allowed) > 6 else ''}"
            )


def _members(graph: ComputationalGraph) -> dict[str, list[Node]]:
    """Operations inside each named part."""
    parts: dict[str, list[Node]] = {}
    for node in graph.nodes:
        names = node.layer.split(".") if node.layer else []
        for depth in range(1, len(names) + 1):
            parts.setdefault(".".join(names[:depth]), []).append(node)
    return parts


def _ends(graph: ComputationalGraph, part: list[Node]) -> tuple[str, str] | None:
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
    return (before, after) if shapes[before] == shapes[after] else None


def _unowned(graph: ComputationalGraph) -> set[str]:
    """Parameters that the network's own code reads."""
    return set(graph.parameters) - {p for n in graph.nodes for p in n.parameters}


def _renumbered(node: Node, units: Units, labels: Labels) -> Node:
    def again(channels: Channels | None) -> Channels | None:
        return None if channels is None else Channels.of(channels.axis, units.of(labels(channels)))

    return replace(node, channels=again(node.channels), filters=again(node.filters))


def _renumbered_parameter(parameter: Parameter, units: Units, labels: Labels) -> Parameter:
    channels = [Channels.of(c.axis, units.of(labels(c))) for c in parameter.channels]
    return replace(parameter, channels=tuple(c for c in channels if (c.units >= 0).any()))
