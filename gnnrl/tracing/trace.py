"""A network as a flat list of operations: a symbolic trace that knows concrete shapes.

`torch.fx` records the operations.  Where a network's Python asks for a number that follows from the
shapes alone (`if x.shape[-1] > 7`, `len(features)`), the recorded prefix is run on the example
input and the answer given; where it asks for a number that depends on the data, the network is
refused.  A flag that follows `network.training` remains a flag of the traced network.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from gnnrl.errors import UserError, first_line, pass_on_shortage
from gnnrl.tracing.flop_counter import FlopCounter
from gnnrl.tracing.forms import rewrite, sizes_one_by_one, weights_as_parameters
from gnnrl.tracing.fx_utils import attribute, followed, scope_of, thawed
from gnnrl.tracing.meta import (
    NEEDS_DATA,
    copy_of,
    is_about_data,
    run_part,
    skeleton_of,
    without_data,
)
from gnnrl.tracing.norms import keep_from_training, norms_as_modules
from gnnrl.tracing.recorder import Recorder, Unreadable, depends_on_data

UNINITIALISED = (UninitializedBuffer, UninitializedParameter)
"""Weights of lazy layers that have seen no input."""

_WRAPPERS = "DataParallel", "DistributedDataParallel", "AveragedModel", "OptimizedModule"


def trace(network: nn.Module, example: Any, opaque: frozenset[str] = frozenset()) -> fx.GraphModule:
    """The operations of `network` on `example` `[N, ...]`, a copy that shares no weights.

    example: one tensor, or several as a tuple or, by the names of the inputs, a dictionary; only
    shapes and types count.  Each node holds in `meta["example"]` what it gives: tensors without
    storage, other values as they are.  `opaque`: modules that are not traced.  In
    `meta["whole"]` stand the modules that could not be traced, and why.
    """
    inputs = without_data(named_inputs(network, example))
    mode = {name: module.training for name, module in network.named_modules()}
    skeleton, network = skeleton_of(network), copy_of(network)
    counters = [(b, b.clone()) for b in network.buffers() if b.numel() == 1 and not b.is_meta]
    network.train(True)
    frozen = {name for name, module in network.named_modules() if not module.training}
    whole: dict[str, str] = {}
    while True:
        graph = _recorded_for_both_modes(network, skeleton, inputs, opaque, whole)
        rewrite(network, graph)
        for node in reversed(graph.nodes):
            part = network.get_submodule(scope_of(node))
            if isinstance(part, nn.MultiheadAttention) and not node.users:
                graph.erase_node(node)  # weights of attention that nobody asked for
        graph._tracer_cls = None  # a copy by pickle would want to make a Recorder from nothing
        traced = fx.GraphModule(network, graph, class_name=type(network).__name__)
        try:
            _Examples(skeleton, traced, opaque | whole.keys()).run_once(inputs)
            if any("example" not in node.meta for node in graph.nodes):
                raise UserError(
                    f"{type(network).__name__} uses what an earlier pass has left on it (a list "
                    "that it appends to, for instance): give what it gives for one image alone"
                )
            break
        except Unreadable as error:
            if not error.part or error.part in whole:
                raise
            whole[error.part] = error.why
    sizes_one_by_one(traced.graph)
    weights_as_parameters(traced)
    norms_as_modules(traced, network)
    traced.meta["whole"] = whole
    for counter, value in counters:
        counter.copy_(value)
    for name, module in traced.named_modules():
        module.training = mode.get(name, mode[""])
        if name in frozen:
            keep_from_training(module)
    return traced


def named_inputs(network: nn.Module, example: Any) -> dict[str, Any]:
    """What a network is called with, by the names of its inputs.

    Raises `UserError` where the network does not take these.
    """
    kind = type(network).__name__
    _refuse_wrapped(network)
    takes = inspect.signature(network.forward)
    try:
        if isinstance(example, Mapping):
            given = takes.bind(**example)
        else:
            given = takes.bind(*(example if isinstance(example, tuple | list) else (example,)))
    except TypeError as error:
        names = ", ".join(takes.parameters)
        raise UserError(
            f"{kind} takes {len(takes.parameters)} inputs ({names}), which the example does not "
            f"give ({error}); give one tensor, a tuple of tensors or a dictionary by these names"
        ) from None
    found = {**given.arguments, **given.arguments.get("kwargs", {})}
    return {k: v for k, v in found.items() if v is not None and k != "kwargs"}


def _refuse_wrapped(network: nn.Module) -> None:
    kind = type(network).__name__
    if isinstance(network, torch.jit.ScriptModule):
        raise UserError(f"{kind} is compiled code, which cannot be cut: give the network itself")
    for held in ("module", "_orig_mod"):  # DataParallel, AveragedModel; torch.compile
        if kind in _WRAPPERS and isinstance(getattr(network, held, None), nn.Module):
            raise UserError(f"{kind} is wrapped around a network: give `network.{held}` instead")
    lazy = [n for n, p in network.named_parameters() if isinstance(p, UNINITIALISED)]
    if lazy:
        raise UserError(
            f"{kind} has layers whose sizes are not known yet ({lazy[0]}): call it once on an image"
        )


def _recorded_for_both_modes(
    network: nn.Module,
    skeleton: nn.Module,
    inputs: Mapping[str, Any],
    opaque: frozenset[str],
    whole: dict[str, str],
) -> fx.Graph:
    """The operations in evaluation mode, able to be trained as the network's own code was.

    whole: modules that cannot be traced, and why; more are added.
    """

    def record(training: bool, leaves: frozenset[str] = frozenset()) -> fx.Graph:
        while True:
            recorder = Recorder(skeleton, inputs, opaque | leaves | whole.keys())
            graph = _recorded(network, training, recorder)
            if not recorder.unread:
                return graph
            whole.update(recorder.unread)  # other calls of the same modules were traced

    graph, before = record(False), len(whole)
    try:
        twin = record(True)
    except UserError:  # it cannot be recorded in training mode; nothing to restore
        return graph
    graph = graph if len(whole) == before else record(False)
    switched = _switched_off(network, graph, twin)
    if switched:  # stochastic depth and the like: kept whole, to go on deciding by itself
        graph, twin = record(False, switched), record(True, switched)
        for node in graph.nodes:
            if node.op == "call_module" and node.target in switched:
                node.meta["identity"] = True
    _restore_training_flags(network, graph, twin)
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
    try:
        network.train(training)
        return tracer.trace(network)
    except UserError:
        raise
    except Exception as error:  # whatever the network's own Python raises under the tracer
        pass_on_shortage(error)
        raise UserError(
            f"{type(network).__name__} cannot be read as a graph: {first_line(error)}; move the "
            "code that does this into a module of its own, which is then left whole, or rewrite it"
        ) from error


class _Examples(fx.Interpreter):
    """Writes `meta["example"]` into every node of a traced network."""

    def __init__(self, skeleton: nn.Module, traced: fx.GraphModule, opaque: Any) -> None:
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

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call_function(target, thawed(args), thawed(kwargs))

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = without_data(super().run_node(n))
        except NEEDS_DATA as error:
            if is_about_data(error):
                raise depends_on_data(n, scope_of(n), type(self._traced).__name__) from error
            raise
        n.meta["example"] = value
        n.meta["follows"] = followed(n)
        return value

    def run_once(self, inputs: Mapping[str, Any]) -> None:
        try:
            with torch.no_grad(), torch.device("meta"):
                self.run(*inputs.values())
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            pass_on_shortage(error)
            shapes = ", ".join(str(tuple(getattr(v, "shape", ()))) for v in inputs.values())
            raise UserError(
                f"the network does not run on an input of shape {shapes}: "
                f"{first_line(error)}; give an input it accepts"
            ) from error


class _Counting(_Examples):
    """Counts what some of the operations take."""

    def __init__(self, traced: fx.GraphModule, nodes: Collection[fx.Node]) -> None:
        opaque = {str(n.target) for n in nodes if n.op == "call_module"}
        super().__init__(skeleton_of(traced), traced, opaque)
        self.flops = dict.fromkeys(nodes, 0)

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounter() as counter:
            value = without_data(fx.Interpreter.run_node(self, n))
        if n in self.flops:
            self.flops[n] = counter.get_total_flops() // 2
        return value


def flops_of(
    traced: fx.GraphModule, inputs: Mapping[str, Any], nodes: Collection[fx.Node]
) -> dict[fx.Node, int]:
    """Multiply-accumulates of operations for these inputs, counted by PyTorch."""
    if not nodes:
        return {}
    counting = _Counting(traced, nodes)
    counting.run_once(inputs)
    return counting.flops


def _restore_training_flags(network: nn.Module, graph: fx.Graph, training: fx.Graph) -> None:
    """Where the two traces differ by `False` and `True` alone, that is `self.training` again;
    where by 0.0 and another number, that number in training (a rate of dropout)."""
    for each in (graph, training):
        _forget_questions(each)
    pairs = list(zip(graph.nodes, training.nodes, strict=False))
    if len(graph.nodes) != len(training.nodes) or not all(_alike(network, *pair) for pair in pairs):
        return
    flag = None
    for node, twin in pairs:
        for place, (old, new) in _differences(node, twin):
            if flag is None:
                with graph.inserting_before(next(iter(graph.nodes))):
                    flag = graph.create_node("get_attr", "training")
                last = [n for n in graph.nodes if n.op == "placeholder"][-1]
                last.append(flag)
            value: Any = flag
            if old is not False:
                with graph.inserting_before(node):
                    value = graph.call_function(operator.mul, (flag, new))
            if isinstance(place, int):
                node.update_arg(place, value)
            else:
                node.update_kwarg(place, value)


def _forget_questions(graph: fx.Graph) -> None:
    """Erase what was asked of a tensor and not used: one mode may ask more (such as the device)."""
    for node in reversed(graph.nodes):
        asks = node.target is getattr or (node.op, node.target) == ("call_method", "size")
        if asks and not node.users:
            graph.erase_node(node)


def _alike(network: nn.Module, node: fx.Node, twin: fx.Node) -> bool:
    """Whether both call the same thing; each trace has constants of its own, by other names."""
    if node.op == twin.op == "get_attr" and node.target != twin.target:
        ours, theirs = attribute(network, str(node.target)), attribute(network, str(twin.target))
        tensors = isinstance(ours, Tensor) and isinstance(theirs, Tensor)
        alike = tensors and ours.shape == theirs.shape
        return alike and (ours.is_meta or torch.equal(ours, theirs))
    return (node.op, node.target) == (twin.op, twin.target)


def _differences(node: fx.Node, twin: fx.Node) -> Iterator[tuple[int | str, tuple[Any, Any]]]:
    places: list[tuple[int | str, Any, Any]] = [
        (i, a, b) for i, (a, b) in enumerate(zip(node.args, twin.args, strict=False))
    ]
    places += [(key, a, twin.kwargs.get(key)) for key, a in node.kwargs.items()]
    for place, a, b in places:
        rate = type(a) in (int, float) and a == 0 and type(b) is float and b != 0
        if (a is False and b is True) or rate:
            yield place, (a, b)
