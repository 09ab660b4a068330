"""A network as a flat list of operations: a symbolic trace that can look at concrete shapes.

`torch.fx` records the operations.  Where a network's Python asks for a number that follows from the
shapes alone (`if x.shape[-1] > 7`, `len(features)`), the recorded prefix is run on the example
input and the answer given; where it asks for a number that depends on the data, the network is
refused.  A flag that follows `network.training` stays a flag of the traced network.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.graph.tracing.fx_utils import attribute, scope_of
from gnnrl.graph.tracing.meta import NEEDS_DATA, is_about_data, run_part, skeleton_of, without_data
from gnnrl.graph.tracing.recorder import Recorder, depends_on_data


def trace(
    network: nn.Module, example: Tensor, opaque: frozenset[str] = frozenset()
) -> fx.GraphModule:
    """The operations of `network` on `example` `[N, ...]`, a copy that shares no weights.

    Only the shape and type of `example` count.  Each node holds in `meta["example"]` what it
    gives: tensors without storage, other values as they are.  `opaque`: modules that are not
    looked into.
    """
    example = without_data(example)
    skeleton, network = skeleton_of(network), copy.deepcopy(network)
    mode = {name: module.training for name, module in network.named_modules()}
    graph = _recorded_for_both_modes(network, skeleton, example, opaque)
    for node in graph.nodes:
        _write_sizes_here(network, node)
    graph._tracer_cls = None  # a copy by pickle would want to make a Recorder from nothing
    traced = fx.GraphModule(network, graph, class_name=type(network).__name__)
    _Examples(skeleton, traced, opaque).run_once(example)
    for name, module in traced.named_modules():
        module.training = mode.get(name, mode[""])
    return traced


def _recorded_for_both_modes(
    network: nn.Module, skeleton: nn.Module, example: Tensor, opaque: frozenset[str]
) -> fx.Graph:
    """The operations in evaluation mode, able to be trained as the network's own code was."""

    def record(training: bool, leaves: frozenset[str]) -> fx.Graph:
        return _recorded(network, training, Recorder(skeleton, example, leaves))

    graph = record(False, opaque)
    try:
        twin = record(True, opaque)
        switched = _switched_off(network, graph, twin)
        if switched:  # stochastic depth and the like: kept whole, to go on deciding by itself
            graph, twin = record(False, opaque | switched), record(True, opaque | switched)
            for node in graph.nodes:
                if node.op == "call_module" and node.target in switched:
                    node.meta["identity"] = True
        _restore_training_flags(graph, twin)
    except UserError:  # it cannot be recorded in training mode; nothing to restore
        pass
    return graph


def _switched_off(network: nn.Module, graph: fx.Graph, training: fx.Graph) -> frozenset[str]:
    """Modules without parts or weights that do something in training and nothing otherwise."""
    busy = {scope_of(node) for node in training.nodes if node.op != "call_module"}
    names = busy - {scope_of(node) for node in graph.nodes} - {""}
    modules = {name: network.get_submodule(name) for name in names}
    return frozenset(
        name
        for name, module in modules.items()
        if not any(True for _ in module.children()) and not any(True for _ in module.parameters())
    )


def _recorded(network: nn.Module, training: bool, tracer: Recorder) -> fx.Graph:
    inputs = [p for p in inspect.signature(network.forward).parameters.values()]
    if sum(p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD for p in inputs) != 1:
        raise UserError(
            f"{type(network).__name__} takes {len(inputs)} inputs; a network to be pruned takes "
            "one tensor of images (wrap it in a module that makes the others)"
        )
    try:
        return tracer.trace(network.train(training))
    except UserError:
        raise
    except Exception as error:  # whatever the network's own Python raises under the tracer
        raise UserError(
            f"{type(network).__name__} cannot be read as a graph: {_first_line(error)}; "
            "protect the part that does this (extract.protect) or rewrite it"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _write_sizes_here(network: nn.Module, node: fx.Node) -> None:
    """Forms that a cut network can have too: sizes of `nn.Unflatten` stand in the call, and no
    view demands a memory layout."""
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    node.meta.pop("is_wrapped", None)  # else the code of the traced network asks for the same
    if isinstance(module, nn.Unflatten) and isinstance(module.dim, int):
        node.op, node.target = "call_method", "unflatten"
        node.args = (node.args[0], module.dim, tuple(module.unflattened_size))
    elif node.op == "call_method" and node.target == "view":
        if not isinstance(node.args[1], torch.dtype):
            node.target = "reshape"


class _Examples(fx.Interpreter):
    """Writes `meta["example"]` into every node of a traced network."""

    def __init__(self, skeleton: nn.Module, traced: fx.GraphModule, opaque: frozenset[str]) -> None:
        super().__init__(skeleton, graph=traced.graph)
        self.extra_traceback = False  # messages are for the user
        self._traced, self._opaque = traced, opaque

    def fetch_attr(self, target: str) -> Any:
        try:
            return super().fetch_attr(target)
        except RuntimeError:  # a constant that tracing has made
            return without_data(attribute(self._traced, target))

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in self._opaque:
            return run_part(self.fetch_attr(target), attribute(self._traced, target), args, kwargs)
        return super().call_module(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = without_data(super().run_node(n))
        except NEEDS_DATA as error:
            if is_about_data(error):
                raise depends_on_data(n, type(self._traced).__name__) from error
            raise
        n.meta["example"] = value
        return value

    def run_once(self, example: Tensor) -> None:
        try:
            with torch.no_grad(), torch.device("meta"):
                self.run(example)
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the network does not run on an input of shape {tuple(example.shape)}: "
                f"{_first_line(error)}; give an input it accepts"
            ) from error


def _restore_training_flags(graph: fx.Graph, training: fx.Graph) -> None:
    """Where the two traces differ by `False` and `True` alone, that is `self.training` again."""
    pairs = list(zip(graph.nodes, training.nodes, strict=False))
    if len(graph.nodes) != len(training.nodes) or any(
        (a.op, a.target) != (b.op, b.target) for a, b in pairs
    ):
        return
    flag = None
    for node, twin in pairs:
        for place, (old, new) in _differences(node, twin):
            if old is not False or new is not True:
                continue
            if flag is None:
                with graph.inserting_before(next(iter(graph.nodes))):
                    flag = graph.create_node("get_attr", "training")
                first = next(n for n in graph.nodes if n.op == "placeholder")
                first.append(flag)
            if isinstance(place, int):
                node.update_arg(place, flag)
            else:
                node.update_kwarg(place, flag)


def _differences(node: fx.Node, twin: fx.Node) -> Iterator[tuple[int | str, tuple[Any, Any]]]:
    for i, (a, b) in enumerate(zip(node.args, twin.args, strict=False)):
        if isinstance(a, bool) and a is not b:
            yield i, (a, b)
    for key in node.kwargs:
        a, b = node.kwargs[key], twin.kwargs.get(key)
        if isinstance(a, bool) and a is not b:
            yield key, (a, b)
