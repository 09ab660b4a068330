"""The computational graph of a network: what it computes, what it costs, what is coupled.

Channels are counted in **units**: sets of channels that are kept or removed together, across all
layers that an addition, a depthwise convolution or a reshape ties to each other.  A unit is the
smallest thing that can be removed.  Units that are produced by the same layers form a channel
group; they are numbered consecutively, so that "which unit is index i of this axis" is a
short list of runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gnnrl.errors import UserError
from gnnrl.files import atomic_write, read_json
from gnnrl.sealed import FORMAT, refuse_newer

FIXED = -1
"""In place of a unit: a channel that is always kept (an input colour, a class score)."""


@dataclass(frozen=True)
class Channels:
    """Which unit each index of one axis belongs to.

    axis: position of the axis in the tensor.  runs: `(first, count, repeat)`, one after the
    other: units first, first + 1, … (count of them), each `repeat` times; `first` -1: fixed.
    """

    axis: int
    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, axis: int, units: np.ndarray) -> Channels:
        """From units `[length]`, one per index."""
        return cls(axis, _encode(np.asarray(units, dtype=np.int64)))

    @cached_property
    def units(self) -> np.ndarray:
        """Unit of each index `[length]`, -1 where fixed."""
        parts = [
            np.full(count * repeat, FIXED)
            if first < 0
            else np.repeat(np.arange(first, first + count), repeat)
            for first, count, repeat in self.runs
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Parameter:
    """A tensor of the network's `state_dict`, and the axes of it that shrink."""

    shape: tuple[int, ...]
    channels: tuple[Channels, ...] = ()
    buffer: bool = False


@dataclass(frozen=True)
class Node:
    """One operation.

    name: unique.  layer: dotted module name, empty for the network's own code.  operation: what
    it does, a name of `gnnrl.graph.operations` (`conv`, `add`, `activation` …) or, where there is
    no rule for it, its own.  inputs: names of the nodes it reads.  shape: of its output for one
    image, without the batch axis.  attributes: kernel, stride, groups …
    parameters: names in `state_dict`, the weight first.  positions: how often the weight is
    applied for one image (flops = positions x elements of the weight); 0: it costs nothing.
    filters: the unit of each filter of a layer that makes channels.  flops: multiply-accumulates
    for one image that no cut changes.  products: (multiply-accumulates for each channel kept, the
    channels) where activations are multiplied with each other.
    """

    name: str
    layer: str
    operation: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any]
    parameters: tuple[str, ...] = ()
    positions: int = 0
    channels: Channels | None = None
    filters: Channels | None = None
    flops: int = 0
    products: tuple[tuple[int, Channels], ...] = ()

    @property
    def width(self) -> int:
        """Number of channels; where none is known, the length of the first axis."""
        axis = 0 if self.channels is None else self.channels.axis - 1  # without the batch axis
        return self.shape[axis] if self.shape else 1

    @property
    def filter_units(self) -> np.ndarray:
        """Unit of each filter of a layer that makes channels `[filters]`, -1: fixed."""
        assert self.filters is not None
        return self.filters.units


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together across `layers`: `size` units, the first numbered `start`."""

    name: str
    start: int
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ComputationalGraph:
    """Operations in order of execution, their parameters and their channel groups.

    It describes itself without weights; two networks with the same graph can share a plan.
    whole: parts that are left whole as they cannot be read, and why.  inputs: type and shape of
    one example of each input, by name; empty: one tensor of numbers.  settings: how attention was
    read, where not as usual.  one_size: the network takes images of other sizes, but was read for
    those of the example only; it is no part of the identity.
    """

    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    parameters: Mapping[str, Parameter]
    groups: tuple[ChannelGroup, ...]
    protected: tuple[str, ...] = ()
    whole: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    one_size: bool = field(default=False, compare=False)

    @cached_property
    def layers(self) -> Mapping[str, Node]:
        """Layers that make channels, by name (a module called twice stands here once)."""
        layers: dict[str, Node] = {}
        for node in self.nodes:
            if node.filters is not None:
                layers.setdefault(node.layer, node)
        return layers

    @cached_property
    def tied_layers(self) -> frozenset[str]:
        """Layers that share their weight with another one."""
        owners: dict[str, set[str]] = {}
        for node in self.nodes:
            for name in node.parameters[:1]:
                owners.setdefault(name, set()).add(node.layer)
        return frozenset().union(*(layers for layers in owners.values() if len(layers) > 1))

    @cached_property
    def axes(self) -> Mapping[tuple[tuple[int, int, int], ...], str]:
        """Every different set of runs that channels lie in, and an operation that has it."""
        found: dict[tuple[tuple[int, int, int], ...], str] = {}
        for node in self.nodes:
            if node.channels is not None:
                found.setdefault(node.channels.runs, node.layer or node.name)
        return found

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Place of each operation in `nodes`, by name."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """For each operation, the place of the first one it reads; its own where it reads none."""
        return tuple(
            self.places.get(node.inputs[0], i) if node.inputs else i
            for i, node in enumerate(self.nodes)
        )

    @property
    def num_units(self) -> int:
        return sum(group.size for group in self.groups)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, the graph's identity."""
        return hashlib.sha256(_dumps(self._content()).encode()).hexdigest()

    def group(self, name: str) -> ChannelGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"no channel group {name!r}; groups: {[g.name for g in self.groups]}")

    def save(self, path: str | Path) -> None:
        """Write JSON, the same bytes for the same graph."""
        content = {"digest": self.digest, "format": FORMAT, **self._content()}
        atomic_write(path, f"{_dumps(content)}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> ComputationalGraph:
        """Read what `save` wrote; refuses a file that was changed by hand."""
        try:
            content = read_json(path)
            digest = content.pop("digest")
            refuse_newer(content.pop("format", 1))
            graph = cls._from_content(content)
            found = graph.digest
        except FileNotFoundError:
            raise UserError(
                f"{path}: no graph here; run `python -m stages.extract` first"
            ) from None
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path}: not a computational graph ({type(error).__name__}: {error}); "
                "extract it again (`python -m stages.extract`)"
            ) from None
        if found != digest:
            raise UserError(
                f"{path}: the content does not match its digest, so it was changed after it was "
                "extracted; extract it again (`python -m stages.extract`)"
            )
        return graph

    def _content(self) -> dict[str, Any]:
        return {
            "input_shape": self.input_shape,
            "protected": self.protected,
            "groups": [asdict(g) for g in self.groups],
            "nodes": [_without_empty(asdict(n)) for n in self.nodes],
            "parameters": {k: _without_empty(asdict(p)) for k, p in self.parameters.items()},
            **{k: dict(getattr(self, k)) for k in _OPTIONAL if getattr(self, k)},
        }

    @classmethod
    def _from_content(cls, content: Mapping[str, Any]) -> ComputationalGraph:
        return cls(
            input_shape=tuple(content["input_shape"]),
            protected=tuple(content["protected"]),
            groups=tuple(
                ChannelGroup(**{**g, "layers": tuple(g["layers"])}) for g in content["groups"]
            ),
            nodes=tuple(_node(n) for n in content["nodes"]),
            parameters={
                name: Parameter(
                    tuple(p["shape"]),
                    tuple(_channels(c) for c in p.get("channels", ())),
                    p.get("buffer", False),
                )
                for name, p in content["parameters"].items()
            },
            **{k: content[k] for k in _OPTIONAL if k in content},
        )


_OPTIONAL = ("whole", "inputs", "settings")


def _node(content: Mapping[str, Any]) -> Node:
    fields = dict(content)
    for name in ("inputs", "shape", "parameters"):
        fields[name] = tuple(fields.get(name, ()))
    for name in ("channels", "filters"):
        fields[name] = _channels(fields[name]) if fields.get(name) else None
    fields["products"] = tuple((n, _channels(c)) for n, c in fields.get("products", ()))
    fields.setdefault("layer", "")
    fields.setdefault("attributes", {})
    return Node(**fields)


def _channels(content: Mapping[str, Any]) -> Channels:
    return Channels(content["axis"], tuple((a, b, c) for a, b, c in content["runs"]))


def _without_empty(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is absent, so that the file is readable."""
    return {k: v for k, v in content.items() if v is not None and v not in ((), {}, 0, "", False)}


def _dumps(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _encode(units: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Runs of `(first, count, repeat)` that give `units` back."""
    if not len(units):
        return ()
    change = np.flatnonzero(np.diff(units)) + 1
    starts = np.concatenate([[0], change])
    lengths = np.diff(np.concatenate([starts, [len(units)]]))
    runs: list[list[int]] = []
    for unit, repeat in zip(units[starts].tolist(), lengths.tolist(), strict=True):
        last = runs[-1] if runs else None
        if unit == FIXED:
            runs.append([FIXED, repeat, 1])
        elif last and last[0] >= 0 and last[2] == repeat and last[0] + last[1] == unit:
            last[1] += 1
        else:
            runs.append([unit, 1, repeat])
    return tuple((a, b, c) for a, b, c in runs)
