"""Running a traced network step by step, with every value at hand while it is needed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from gnnrl.errors import UserError
from gnnrl.tracing.inplace import stop_writing


def out_of_place(traced: fx.GraphModule) -> fx.GraphModule:
    """A copy in evaluation mode none of whose operations overwrites what it reads.

    Raises `UserError` for a network whose own code is no graph.
    """
    if "shell" in traced.meta:
        raise UserError(
            f"the layers of {type(traced).__name__} cannot be refitted, for its own code is no "
            "graph: set prune.compensation and search.reward.compensation to none, and "
            "search.importance to one that needs no calibration, such as l1_normalised"
        )
    traced = copy.deepcopy(traced).eval()
    stop_writing(traced)
    return traced


class Stepper:
    """Runs the nodes of a traced network on images `[n, C, H, W]`, as far as asked.

    Values are dropped after their last use; those of the nodes named in `keep` when released.
    """

    def __init__(self, traced: fx.GraphModule, images: Tensor, keep: Iterable[str] = ()) -> None:
        self._interpreter = fx.Interpreter(traced, garbage_collect_values=False)
        self._nodes = list(traced.graph.nodes)
        self._images, self._keep, self._next = images, set(keep), 0
        self._last: dict[fx.Node, int] = {}
        for i, node in enumerate(self._nodes):
            for read in node.all_input_nodes:
                self._last[read] = i
        self._named = {n.name: n for n in self._nodes}

    def run_to(self, name: str) -> Tensor:
        """Run until the node has its value; return it."""
        node = self._named[name]
        while node not in self._interpreter.env:
            self._step()
        return self._interpreter.env[node]

    def run_before(self, name: str) -> None:
        """Run everything that comes before a node."""
        node = self._named[name]
        while self._nodes[self._next] is not node:
            self._step()

    def value(self, name: str) -> Any:
        """A value that was computed and is still needed."""
        return self._interpreter.env[self._named[name]]

    def release(self, name: str) -> None:
        """This value is not needed any more, but by the network itself."""
        self._keep.discard(name)
        node = self._named[name]
        if self._last.get(node, -1) < self._next:
            self._interpreter.env.pop(node, None)

    def _step(self) -> None:
        node, env = self._nodes[self._next], self._interpreter.env
        with torch.no_grad():
            for read in node.all_input_nodes:
                if read.op == "get_attr":  # a weight, which may have been refitted since
                    env[read] = self._interpreter.run_node(read)
            if node.op == "placeholder":
                env[node] = node.args[0] if node.args else self._images
            else:
                env[node] = self._interpreter.run_node(node)
        for read in node.all_input_nodes:
            if self._last[read] == self._next and read.name not in self._keep:
                del env[read]
        self._next += 1
