"""From a joined graph back to the user's own network, whose parts run the operations of the graph.

Every module stays an object of its own class, with its methods and settings; only the forward pass
of the parts is that of the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from gnnrl.errors import UserError
from gnnrl.tracing.joined import Part, Shell, given, taken


def dressed(graph: fx.GraphModule) -> nn.Module:
    """The network of a joined graph, which shares its layers; any other graph as it is."""
    shell: Shell | None = graph.meta.get("shell")
    if shell is None:
        return graph
    for part in shell.parts.values():
        forwards = [_forward(graph, part, number) for number in part.calls]
        if any(other.code != forwards[0].code for other in forwards):
            raise UserError(
                f"{part.name}: its calls do not lose the same channels, so it cannot be cut; "
                "protect it (extract.protect)"
            )
        _run(shell.network, part.name, forwards[0])
    return shell.network


def _forward(graph: fx.GraphModule, part: Part, number: int) -> fx.GraphModule:
    """One call of a part as a module of its own, that shares the layers of the shell's part."""
    module = graph.meta["shell"].network.get_submodule(part.name)
    alone, inside, gathers = fx.Graph(), f"{part.name}.", 0
    copies: dict[fx.Node, fx.Node] = {}
    inputs = {name: alone.placeholder(name) for name in part.inputs}
    for node in graph.graph.nodes:
        if node.meta.get("call") != number:
            continue
        if node.target is taken:
            name, *keys = node.meta["path"]
            copies[node] = inputs[name]
            for key in keys:
                copies[node] = alone.call_function(operator.getitem, (copies[node], key))
        elif node.target is given:
            alone.output(fx.node.map_arg(node.args[0], copies.__getitem__))
        else:
            target: Any = node.target
            if node.op in ("call_module", "get_attr") and target.startswith(inside):
                target = target.removeprefix(inside)
            elif node.op == "call_module":  # a gather that surgery has put in
                target, gathers = f"gather_{gathers}", gathers + 1
                module.add_module(target, graph.get_submodule(str(node.target)))
            arguments: Mapping[str, Any] = fx.node.map_arg(node.kwargs, copies.__getitem__)
            copies[node] = alone.create_node(
                node.op, target, fx.node.map_arg(node.args, copies.__getitem__), dict(arguments)
            )
    return fx.GraphModule(module, alone, class_name=type(module).__name__)


def _run(network: nn.Module, name: str, forward: fx.GraphModule) -> None:
    """Let a part of a network run `forward`."""
    part = network.get_submodule(name)
    if isinstance(part, fx.GraphModule):
        parent, _, last = name.rpartition(".")
        network.get_submodule(parent)._modules[last] = forward
        return
    kind = type(part)
    own = kind.__bases__[0] if kind.__dict__.get("_of_graph") else kind
    members = {"forward": type(forward).forward, "_of_graph": True, "__module__": own.__module__}
    part.__class__ = type(own.__name__, (own,), members)
