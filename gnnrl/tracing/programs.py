"""Networks as modules of tensors, to export them; of one whose own code is no graph its parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx, nn

from gnnrl.tracing.joined import finished, given, handed, pooled, taken
from gnnrl.tracing.read import read_network


def programs(network: nn.Module, example: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """The network and its example, or modules that together hold its parts.

    Of a network whose own code is no graph: parts that are joined without the shell between them
    are one module, from one tensor to a tuple of all that the shell reads of them.  By the name of
    the last part in it, with an example of its input (without data); parts that read several
    tensors of the shell are left out.
    """
    joined = network if isinstance(network, fx.GraphModule) else read_network(network, example)
    if "shell" not in joined.meta:
        return {"": (network, example)}
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    for nodes in _groups(joined):
        made = _program(joined, nodes)
        if made is not None:
            name = _part_of(joined, nodes[-1])
            found[name] = made
    return found


def _groups(joined: fx.GraphModule) -> list[list[fx.Node]]:
    """Operations that are joined by tensors, without those of the shell, in order."""
    group: dict[fx.Node, list[fx.Node]] = {}
    for node in joined.graph.nodes:
        if _is_shell(node):
            continue
        together: list[fx.Node] = []
        for read in node.all_input_nodes:
            other = group.get(read)
            if other is not None and other is not together:
                together += other
                group |= dict.fromkeys(other, together)
        together.append(node)
        group |= dict.fromkeys(together, together)
    distinct = {id(nodes): nodes for nodes in group.values()}
    order = {node: k for k, node in enumerate(joined.graph.nodes)}
    return sorted((sorted(nodes, key=order.__getitem__) for nodes in distinct.values()),
                  key=lambda nodes: order[nodes[0]])  # fmt: skip


def _is_shell(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output") or node.target in (handed, pooled, given, finished)


def _program(
    joined: fx.GraphModule, nodes: Iterable[fx.Node]
) -> tuple[fx.GraphModule, Tensor] | None:
    graph, copies, inside = fx.Graph(), dict[fx.Node, fx.Node](), set(nodes)
    sources = {n: None for node in nodes for n in node.all_input_nodes if n not in inside}
    outputs = [n for n in nodes if any(u.target in (handed, pooled, finished) for u in n.users)]
    outputs = [n for n in outputs if n.op != "get_attr"]
    if len(sources) != 1 or not outputs:
        return None
    (source,) = sources
    copies[source] = graph.placeholder("images")
    for node in nodes:
        if node.target is taken:
            read: Any = node.args[0]
            copies[node] = copies[read]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[n] for n in outputs))
    return fx.GraphModule(joined, graph, class_name="Parts"), source.meta["example"]


def _part_of(joined: fx.GraphModule, node: fx.Node) -> str:
    origin = joined.meta["shell"].origins.get(node.name)
    return str(origin[0] if origin is not None else node.target)
