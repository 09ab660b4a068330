"""The graph of a network whose own code is no graph: its parts, joined by what flows between them.

A network of that kind is the *shell* of its parts.  What the shell does stands in the graph as few
operations, which say what it hands to parts and what it reads; they cannot be run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.tracing.trace import flops_of


def handed(*read: Any) -> Tensor:
    """In a joined graph: a tensor that the shell makes of `read` and gives to a part."""
    raise UserError("this network's own code is no graph: its parts cannot be run without it")


def taken(x: Tensor) -> Tensor:
    """In a joined graph: what a part reads."""
    return x


def given(outputs: Any) -> None:
    """In a joined graph: what a part gives, by its own names."""


def pooled(*maps: Tensor) -> Tensor:
    """In a joined graph: regions that are cut out of feature maps and pooled."""
    return handed(*maps)


def finished(*read: Any) -> None:
    """In a joined graph: what the shell reads, of its parts and its own weights."""


@dataclass
class Part:
    """A part that is read as operations.

    inputs: names of what it is called with.  calls: numbers of its calls in the graph.  traced:
    the part alone, and what it was called with (`example`, tensors without data).
    """

    name: str
    inputs: tuple[str, ...]
    calls: list[int]
    traced: fx.GraphModule
    example: Mapping[str, Any]

    def node(self, name: str) -> fx.Node:
        """An operation of the part alone."""
        return next(n for n in self.traced.graph.nodes if n.name == name)


@dataclass
class Shell:
    """What stands in `meta["shell"]` of a joined graph.

    network: a copy of the network, of the same layers as the joined graph.  parts: by name.
    origins: for each operation of the graph, its part and the operation of the part alone.
    """

    network: nn.Module
    parts: dict[str, Part] = field(default_factory=dict)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)


def flops_of_joined(joined: fx.GraphModule, nodes: Iterable[fx.Node]) -> dict[fx.Node, int]:
    """Multiply-accumulates for the example of what is left whole, counted by PyTorch."""
    shell: Shell = joined.meta["shell"]
    asked: dict[str, dict[str, fx.Node]] = {name: {} for name in shell.parts}
    for node in nodes:
        if node.name in shell.origins:
            part, alone = shell.origins[node.name]
            asked[part][node.name] = shell.parts[part].node(alone)
    counts = {
        name: flops_of(shell.parts[name].traced, shell.parts[name].example, set(found.values()))
        for name, found in asked.items()
    }
    found = {joined_name: counts[part][alone]
             for part, names in asked.items() for joined_name, alone in names.items()}  # fmt: skip
    return {n: found.get(n.name, n.meta.get("flops", 0)) for n in nodes}
