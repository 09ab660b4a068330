"""A network whose own code cannot be read, but whose parts can: a detector, for instance.

The network is the *shell* of its parts (backbone, pyramid, heads).  One run of the shell on random
images shows what flows between them: a tensor that one part gives and another one reads, unchanged,
is an edge of the graph; what the shell makes or reads itself is kept.  In this run the parts give
random numbers of the shapes that they would give, so that neither weights nor widths decide what
the shell does.  The parts are read as operations and joined to one graph; the shell stays Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from gnnrl.errors import UserError, first_line, pass_on_shortage
from gnnrl.tasks.nested import tensors
from gnnrl.tracing.flop_counter import FlopCounter
from gnnrl.tracing.fx_utils import attribute
from gnnrl.tracing.joined import Part, Shell, finished, given, handed, pooled, taken
from gnnrl.tracing.meta import copy_of, evaluating, skeleton_of, without_data
from gnnrl.tracing.shell_values import (
    are_plain,
    chosen_part,
    hollow,
    hollow_inputs,
    in_joined,
    is_layer,
    pools_regions,
    same_shapes,
    tensors_by_name,
)
from gnnrl.tracing.trace import named_inputs, trace

_QUERIES = set(
    "shape device dtype ndim layout requires_grad is_cuda is_meta size dim numel ndimension "
    "is_floating_point is_complex __len__ get_device type element_size is_contiguous".split()
)
"""What the shell may ask a tensor without reading it."""


_SHELL = object()
"""In place of what a module gives that is a shell itself."""


class _NoPart(Exception):
    """A module that cannot be one part: what it is called with, or does, differs between calls."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name, self.why = name, why


def join(network: nn.Module, example: Any, opaque: frozenset[str], why: str) -> fx.GraphModule:
    """The operations of the parts of `network`, joined by what flows between them.

    The counterpart of `trace`, with `meta["shell"]`.  why: the network's own code is no graph.
    Operations in the shell and in what is left whole have their multiply-accumulates for the
    example in `meta["flops"]`.  Raises `UserError` where the network does not run.
    """
    refused = {name: "protected" for name in opaque}
    while True:
        recording = _Recording(network, named_inputs(network, example), refused)
        try:
            return recording.joined(why)
        except _NoPart as error:
            refused[error.name] = error.why


class _Recording:
    """One run of a shell."""

    def __init__(
        self, network: nn.Module, inputs: Mapping[str, Any], refused: Mapping[str, str]
    ) -> None:
        self.network, self.refused, self.graph = network, refused, fx.Graph()
        self.running, self.skeleton = evaluating(copy_of(network)), skeleton_of(network)
        self.shell = Shell(copy_of(network))
        self.whole: dict[str, str] = {}
        self.shells: set[str] = set()
        self.generator = torch.Generator().manual_seed(0)
        self.counter = FlopCounter()
        self.paused, self.watching = False, True
        self.flops_of_parts, self.counted, self.calls = 0, 0, 0
        # tensors that are known by their operation; held, so that no other takes their identity
        self.known: dict[int, tuple[Tensor, fx.Node, int]] = {}
        self.read: dict[fx.Node, None] = {}
        self.ends: list[fx.Node] = []
        self.covered: set[str] = set()
        self.weights = {
            id(t): (t, name) for name, t in self.running.named_parameters(remove_duplicate=False)
        }
        self.inputs = {k: self._image(v) for k, v in inputs.items()}
        for name, value in self.inputs.items():
            if isinstance(value, Tensor):
                self.read[self._node("placeholder", name, (), value)] = None

    def joined(self, why: str) -> fx.GraphModule:
        """Run the shell; return the graph."""
        for name, module in self.running.named_modules():
            if name and (
                is_layer(module) or pools_regions(module) or any(True for _ in module.parameters())
            ):
                forward = partial(self._called, name, module, module.forward)
                module.forward = forward
        places = list(inspect.signature(self.network.forward).parameters)
        by_place = list(self.inputs) == places[: len(self.inputs)]
        args, kwargs = (tuple(self.inputs.values()), {}) if by_place else ((), self.inputs)
        with torch.no_grad(), torch.random.fork_rng(), self.counter, _Watching(self):
            torch.manual_seed(0)
            try:
                answer = self.running(*args, **kwargs)
            except (UserError, _NoPart):
                raise
            except Exception as error:  # whatever the network's own Python raises
                pass_on_shortage(error)
                raise UserError(
                    f"{type(self.network).__name__} cannot be read as a graph ({why}), and does "
                    f"not run on an example of its own inputs either: {first_line(error)}"
                ) from error
        self.note_read(answer)
        return self._finished(why)

    def _finished(self, why: str) -> fx.GraphModule:
        network = self.shell.network
        own = [
            self._node("get_attr", name, (), tensor)
            for name, tensor in network.named_parameters()
            if not any(name == c or name.startswith(f"{c}.") for c in self.covered)
        ]
        if own:  # layers that this run did not come by may read what flows between the others
            self.read |= {n.args[0]: None for n in self.graph.nodes if n.target is taken}
        end = self._node("call_function", finished, (*self.read, *self.ends, *own), None)
        end.meta["flops"] = self._flops_since()
        self.graph.output(end).meta |= {"example": None, "follows": {"data", "shape"}}
        traced = fx.GraphModule(network, self.graph, class_name=type(network).__name__)
        traced.meta["shell"] = self.shell
        traced.meta["whole"] = {
            type(network).__name__: f"{why}; its own code is kept, its parts are pruned",
            **self.whole,
        }
        return traced

    def _image(self, value: Any) -> Any:
        """Random numbers for an input; all images are the same, so that counts divide evenly."""
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point():
            return torch.zeros(value.shape, dtype=value.dtype)
        like = next((p for p in self.running.parameters() if p.is_floating_point()), value)
        one = torch.rand((1, *value.shape[1:]), generator=self.generator)
        return one.to(like.dtype).expand(value.shape).contiguous().to(like.device)

    def _noise(self, value: Any) -> Any:
        """Random numbers in the shape of what a part gives, the same ones for all images."""
        if not isinstance(value, Tensor):
            return value
        device = next((p.device for p in self.running.parameters()), torch.device("cpu"))
        if not value.is_floating_point():
            return torch.zeros(value.shape, dtype=value.dtype, device=device)
        # drawn anew for each tensor, so that the widths of others do not matter
        generator = torch.Generator().manual_seed(len(self.known))
        rows = len(value) if value.ndim else 1
        halves = 2 if rows % 2 == 0 else 1
        shape = (rows // halves, *value.shape[1:]) if value.ndim else ()
        drawn = torch.randn(shape, generator=generator).to(device, value.dtype)
        return drawn.repeat(halves, *[1] * (value.ndim - 1)) if value.ndim else drawn

    # what is called

    def _called(
        self, name: str, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Stands for the forward pass of every module inside the shell."""
        if self.paused or name in self.shells:
            return forward(*args, **kwargs)
        self.watching = False
        value = self._recorded(name, module, forward, args, kwargs)
        self.watching = True
        return forward(*args, **kwargs) if value is _SHELL else value

    def _recorded(
        self,
        name: str,
        module: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Record the call of a module; return what it gives, or that it is a shell itself."""
        if pools_regions(module):
            return self._pool(forward, args, kwargs)
        if name in self.refused:
            return self._left_whole(name, forward, args, kwargs, self.refused[name])
        if is_layer(module):
            return self._leaf(name, forward, args, kwargs)
        try:
            inputs = tensors_by_name(module, args, kwargs)
            traced = self._traced(name, inputs)
        except (UserError, TypeError) as error:
            reason = getattr(error, "why", first_line(error))
            if not any(True for _ in module.children()):
                return self._left_whole(name, forward, args, kwargs, reason)
            self.shells.add(name)
            self.whole[name] = f"{reason}; its own code is kept, its parts are pruned"
            return _SHELL
        return self._part(name, traced, inputs)

    def _traced(self, name: str, inputs: Mapping[str, Any]) -> fx.GraphModule:
        known, example = self.shell.parts.get(name), hollow_inputs(inputs)
        if known is not None and same_shapes(known.example, example):
            return known.traced
        with self._pause():
            traced = trace(self.network.get_submodule(name), example, self._opaque_in(name))
        if known is None:
            self._adopt(name, traced)
            self.shell.parts[name] = Part(name, tuple(inputs), [], traced, example)
            for inner, reason in traced.meta["whole"].items():
                self.whole[f"{name}.{inner}"] = reason
        elif traced.code != known.traced.code:
            raise _NoPart(name, "what it does differs between its calls")
        return traced

    def _opaque_in(self, name: str) -> frozenset[str]:
        inside = f"{name}."
        return frozenset(n.removeprefix(inside) for n in self.refused if n.startswith(inside))

    def _adopt(self, name: str, traced: fx.GraphModule) -> None:
        """Let the shell hold the very layers and tensors of a part that was read."""
        part = self.shell.network.get_submodule(name)
        for node in traced.graph.nodes:
            if node.op not in ("call_module", "get_attr") or node.target == "training":
                continue
            path, _, last = str(node.target).rpartition(".")
            owner: Any = part.get_submodule(path)
            value = attribute(traced, str(node.target))
            if node.op == "call_module":
                owner._modules[last] = value
            elif isinstance(value, Tensor):
                held = next((h for h in (owner._parameters, owner._buffers) if last in h), None)
                if held is not None:
                    held[last] = value
                else:
                    owner.register_buffer(last, value, persistent=False)
            elif not hasattr(owner, last):
                setattr(owner, last, value)

    def _part(self, name: str, traced: fx.GraphModule, inputs: Mapping[str, Any]) -> Any:
        """Record a call of a part; give random numbers in the shapes of its outputs."""
        part = self.shell.parts[name]
        if tuple(inputs) != part.inputs:
            raise _NoPart(name, "what it is called with differs between its calls")
        with self._pause():
            structure = run_hollow(self.skeleton.get_submodule(name), inputs)
        number, self.calls = self.calls, self.calls + 1
        part.calls.append(number)
        self.covered.add(name)
        copies: dict[fx.Node, Any] = {}
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                copies[node] = self._taken(inputs[str(node.target)], number, (str(node.target),))
            elif node.op == "output":
                outputs = in_joined(node.args[0], copies)
            elif (chosen := chosen_part(node, copies)) is not None:
                copies[node] = chosen
            else:
                copies[node] = self._copy(node, copies, number, name)
        end = self._node("call_function", given, (outputs,), None, number)
        self.ends.append(end)
        flat, spec = pytree.tree_flatten(structure)
        nodes = [n for n in pytree.tree_leaves(outputs) if isinstance(n, fx.Node)]
        places = [k for k, value in enumerate(flat) if isinstance(value, Tensor)]
        if [n.meta["example"].shape for n in nodes] != [flat[k].shape for k in places]:
            raise _NoPart(name, "what it gives is no structure of tensors")
        for node, place in zip(nodes, places, strict=True):
            flat[place] = self._noise(flat[place])
            self._know(flat[place], node)
        return pytree.tree_unflatten(flat, spec)

    def _copy(
        self, node: fx.Node, copies: Mapping[fx.Node, Any], number: int, name: str
    ) -> fx.Node:
        """One operation of a part, in the joined graph."""
        new = self.graph.create_node(
            node.op,
            f"{name}.{node.target}" if node.op in ("call_module", "get_attr") else node.target,
            in_joined(node.args, copies),
            in_joined(node.kwargs, copies),
            name=node.name,
        )
        new.meta = dict(node.meta) | {"call": number}
        stack = {name: (name, type(self.running.get_submodule(name)))}
        for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
            stack[f"{name}.{key}"] = (f"{name}.{path}", kind)
        new.meta["nn_module_stack"] = stack
        self.shell.origins[new.name] = (name, node.name)
        return new

    def _taken(self, value: Any, number: int, path: tuple[Any, ...]) -> Any:
        """What a part reads: an operation for each tensor, in lists and dictionaries as given."""
        if isinstance(value, Tensor):
            node = self._node("call_function", taken, (self._source(value),), value, number)
            node.meta["path"] = path
            return node
        if isinstance(value, Mapping):
            return {k: self._taken(v, number, (*path, k)) for k, v in value.items()}
        return [self._taken(v, number, (*path, k)) for k, v in enumerate(value)]

    def _leaf(
        self, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A layer of PyTorch that the shell calls itself."""
        before = self._flops_since()
        sources = pytree.tree_map(
            lambda v: self._source(v) if isinstance(v, Tensor) else v, (args, kwargs)
        )
        with self._pause():
            value = forward(*args, **kwargs)
        if not isinstance(value, Tensor) or not are_plain(sources):
            raise _NoPart(name, "what it takes or gives is no tensor")
        self._flops_since()
        self.counted += before
        node = self._node("call_module", name, sources[0], value, kwargs=sources[1])
        self.covered.add(name)
        self._know(value, node)
        return value

    def _pool(
        self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Regions of feature maps: their channels are those of the maps."""
        maps = args[0] if args else kwargs["x"]
        sources = [self._source(v) for v in pytree.tree_leaves(maps) if isinstance(v, Tensor)]
        with self._pause(count=True):
            value: Tensor = forward(*args, **kwargs)
        self._know(value, self._node("call_function", pooled, tuple(sources), value))
        return value

    def _left_whole(
        self,
        name: str,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        why: str,
    ) -> Any:
        """A part that cannot be read: it runs as it is, and what it reads and gives is kept."""
        if why != "protected":
            self.whole.setdefault(name, why)
        before = self._flops_since()
        read = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        sources = tuple(self._source(v) for v in read)
        with self._pause(count=True):
            value = forward(*args, **kwargs)
        node = self._node("call_module", name, sources, without_data(value))
        node.meta["flops"] = self._flops_since()
        self.counted += before
        self.covered.add(name)
        self.ends.append(node)
        return value

    # what is known of tensors

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        self.known[id(tensor)] = (tensor, node, tensor._version)

    def known_node(self, value: Any) -> fx.Node | None:
        """The operation that gave a tensor, which nothing has written into since."""
        found = self.known.get(id(value))
        return found[1] if found is not None and found[2] == value._version else None

    def _source(self, value: Tensor) -> fx.Node:
        """The operation that gave a tensor; for one that the shell made, the shell."""
        node = self.known_node(value)
        if node is None:
            node = self._node("call_function", handed, tuple(self.read), value)
            node.meta["flops"] = self._flops_since()
            self._know(value, node)
        return node

    def note_read(self, values: Any) -> None:
        """The shell has read these tensors, whatever it did with them."""
        for value in tensors(values):
            node = self.known.get(id(value))
            if node is not None:
                self.read[node[1]] = None
            weight = self.weights.get(id(value))
            if weight is not None and not self._is_own(weight[1]):
                raise _NoPart(
                    weight[1].rpartition(".")[0], "the network's own code reads its weights"
                )

    def _is_own(self, weight: str) -> bool:
        """Whether a weight stands in code that is kept."""
        part = weight.rpartition(".")[0]
        return not part or part in self.shells or part in self.refused

    def _node(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...],
        value: Any,
        call: int | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> fx.Node:
        node = self.graph.create_node(op, target, args, kwargs or {})
        node.meta = {"example": without_data(value), "follows": {"data", "shape"}}
        if op == "get_attr":
            node.meta["follows"] = set()
        if call is not None:
            node.meta["call"] = call
        return node

    def _flops_since(self) -> int:
        """Multiply-accumulates of the shell since they were asked for last."""
        total = self.counter.get_total_flops() // 2 - self.flops_of_parts
        found, self.counted = total - self.counted, total
        return found

    def _pause(self, count: bool = False) -> _Pause:
        return _Pause(self, count)


class _Pause:
    """While it lasts, nothing is recorded; count: but flops are."""

    def __init__(self, recording: _Recording, count: bool) -> None:
        self.recording, self.count = recording, count

    def __enter__(self) -> None:
        self.before, self.recording.paused = self.recording.paused, True
        self.flops = self.recording.counter.get_total_flops()

    def __exit__(self, *_: object) -> None:
        self.recording.paused = self.before
        if not self.count and not self.before:
            found = self.recording.counter.get_total_flops() - self.flops
            self.recording.flops_of_parts += found // 2


class _Watching(TorchFunctionMode):
    """Notes which tensors the shell's own code reads."""

    def __init__(self, recording: _Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(func.__self__, "__name__", "")
        if self.recording.watching and name not in _QUERIES:
            self.recording.note_read((args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def run_hollow(skeleton: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """What a part gives for inputs of these shapes, without data."""
    with torch.no_grad(), torch.device("meta"):
        return skeleton.forward(**pytree.tree_map(hollow, dict(inputs)))
