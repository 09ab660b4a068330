"""How channels flow through the operations of a traced network.

Each tensor has a layout: the axis its channels lie on and a label for every index of that axis.
Layers make labels, elementwise operations make labels equal, and operations that only move data
(reshape, permute, slice, pad, shuffle …) are run on a tensor of positions, which tells exactly
where every channel went, whatever the network's author wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, fx

from gnnrl.graph.coupling import Couplings
from gnnrl.tracing.fx_utils import attribute, on_batch, operation_name, scope_of

EXAMPLE_BATCH = 2
"""Images of the example: an axis of length one would be taken for something it is not."""


@dataclass(frozen=True)
class Layout:
    """labels `[length]` of the indices of `axis`; the other axes do not tell channels apart."""

    axis: int
    labels: np.ndarray


@dataclass(frozen=True)
class Folded:
    """Channels spread over several axes, between two reshapes.

    source: the last node with a layout.  positions: for each element, 1 + the flat position of
    its origin in the source, 0 for padding.
    """

    source: fx.Node
    positions: Tensor


@dataclass(frozen=True)
class Weights:
    """A parameter used by the network's own code; the operation that reads it gives its layout.

    steps: its own node, and those that its elements went through since, with whether they were
    moved.
    """

    path: str
    steps: tuple[tuple[fx.Node, bool], ...]


@dataclass(frozen=True)
class Product:
    """Multiply-accumulates of one image where activations meet activations: `each` for every
    channel of `labels`; None: whatever is cut."""

    each: int
    labels: np.ndarray | None


@dataclass(frozen=True)
class Gather:
    """In the cut network: pick channels `index` `[length]` (-1: zeros) of `source` on `axis`."""

    source: fx.Node
    axis: int
    index: np.ndarray


@dataclass(frozen=True)
class Layer:
    """What an operation with weights does to channels.

    filters: labels of what it makes.  parameters: names, the weight first.  positions: uses of
    the weight for one image.  per_group: inputs of one convolution group where whole groups are
    cut together, else 0.  axis: of a normalised shape, where its channels lie.
    """

    name: str
    filters: np.ndarray | None
    parameters: tuple[str, ...]
    positions: int = 0
    per_group: int = 0
    axis: int | None = None


PRODUCTS = {"matmul", "bmm", "mm", "einsum", "scaled_dot_product_attention"}
"""Operations in which activations are multiplied with each other and summed up."""


class Refusal(Exception):
    """An operation through which channels cannot be cut, and why."""

    def __init__(self, node: fx.Node, why: str) -> None:
        super().__init__(why)
        self.node, self.why = node, why


class WritesInPlace(Refusal):
    """An operation that writes into a tensor which others see."""


@dataclass
class Flow:
    """Everything found out about a traced network; the rules fill it node by node.

    embedding: whether the width that layer norms see may be cut where there is attention.
    attention: what is cut of it, `heads` or the `width` of each.  whole: what is left whole as
    there is no rule for it, by part or operation, and why.
    """

    traced: fx.GraphModule
    protected: frozenset[str]
    embedding: bool = False
    attention: str = "heads"
    couplings: Couplings = field(default_factory=Couplings)
    layouts: dict[fx.Node, Any] = field(default_factory=dict)
    axes: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    layers: dict[fx.Node, Layer] = field(default_factory=dict)
    gathers: dict[fx.Node, Gather] = field(default_factory=dict)
    products: dict[fx.Node, tuple[Product, ...]] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for name, tensor in self.traced.named_parameters(remove_duplicate=False):
            names.setdefault(id(tensor), name)
        return names

    def one_name(self, path: str) -> str:
        """The first name of a parameter that several modules share."""
        return self._names.get(id(attribute(self.traced, path)), path)

    def layer_of(self, weight: str) -> str:
        """Name of the layer that a weight in a module's own code makes: the module's, or, of the
        second and later weights of one module, the weight's."""
        module = weight.rpartition(".")[0] or weight
        owner = next((w for w in self.filters if w.rpartition(".")[0] == module), weight)
        return module if owner == weight else weight

    @cached_property
    def multiplies(self) -> bool:
        """Whether activations are multiplied with each other and summed up anywhere."""
        return any(operation_name(node) in PRODUCTS for node in self.traced.graph.nodes)

    def bind(self, path: str, axis: int, labels: np.ndarray) -> None:
        """Axis `axis` of parameter `path` shrinks with `labels`."""
        known = self.axes.setdefault((path, axis), labels)
        self.couplings.couple(known, labels)

    def pin(self, node: fx.Node) -> None:
        """Keep every channel of a tensor, or of several."""
        found = self.layouts.get(node)
        for part in found if isinstance(found, tuple) else (found,):
            if isinstance(part, Folded):
                part = self.layouts[part.source]
            if isinstance(part, Layout):
                self.couplings.pin(part.labels)

    def refuse(self, node: fx.Node, why: str) -> None:
        """Say that there is no safe way to cut channels through this operation."""
        raise Refusal(node, f"{operation_name(node)!r}: {why}")

    def note(self, node: fx.Node, why: str) -> None:
        """Write down that an operation is left whole, and why."""
        part = scope_of(node) or node.name
        known = self.whole.setdefault(part, why)
        if why not in known:
            self.whole[part] = f"{known}; {why}"

    @staticmethod
    def per_image(node: fx.Node, count: int) -> int:
        """What an operation does for one image, of what it does for the example's two.

        What follows from the size of images alone, such as an encoding of places, may be computed
        once for all of them: then its first axis does not count images.
        """
        once = "data" not in node.meta["follows"] and shape_of(node)[0] % EXAMPLE_BATCH
        return count // EXAMPLE_BATCH if on_batch(node) and not once else count

    def is_protected(self, layer: str) -> bool:
        return any(layer == name or layer.startswith(f"{name}.") for name in self.protected)


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of what a node gave for the example, batch axis included."""
    return tuple(node.meta["example"].shape)


def is_tensor(node: Any) -> bool:
    """Whether what stands in an argument is an operation that gave a tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("example"), Tensor)
