"""A network as the agent sees it that decides which layers are removed.

Nodes are operations and the parts that can be removed.  Operations are joined as data flows, a part
to its operations and to the parts inside it.  Every node has the eight features of SageMaker's
example of N2N, scaled to about [-1, 1]: a part has those of all its operations together.
"""

# N: nodes (operations, then parts and sizes)   O: operations   P: parts   E: edges   F: features

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.graph import cost_model
from gnnrl.graph.cost_model import elements
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.kernels import shrunk
from gnnrl.graph.operations import OPERATIONS, operation_of
from gnnrl.search.observations.common import Columns, number, one_hot, two_way

_SHOWN = [operation for operation in OPERATIONS.values() if operation.has_layer_column]
_TYPED = sorted((o for o in _SHOWN if o.layer_type), key=lambda operation: operation.layer_type)
KINDS = (*(o.name for o in (*_TYPED, *(o for o in _SHOWN if not o.layer_type))), "part")
"""Kinds of nodes that have a column of their own; all others share the last one."""

EIGHT = ("start", "end", "type", "a", "b", "c", "d", "footprint")
"""The example's.  Convolution: filters, kernel, stride, whether the padding keeps the size.
Linear: outputs.  Pooling: size, stride, padding.  Footprint: parameters."""

FEATURES = Columns((*EIGHT, "width", "resolution", "flops share", "parameter share"))
"""Columns that follow the kinds; one more says whether the node is removed."""

LARGEST = {"type": 5, "b": 7, "c": 4}
BITS = {"a": 12, "footprint": 24, "width": 12, "resolution": 16}
"""How features are scaled: by their usual maximum, or as logarithms by its bits."""

SUMMED = ("footprint", "flops share", "parameter share")
"""Features of a part that are sums over its operations."""

EDGES = ("reads", "read by", "in", "holds", "inside", "around", "before", "after")


class LayerView:
    """Observations of one network whose `parts` can be removed.

    sizes: layers and the smaller size that their kernel may have.  Each is one more node, with the
    features that the layer would have.
    """

    def __init__(
        self,
        graph: ComputationalGraph,
        parts: Mapping[str, Sequence[Node]],
        sizes: Sequence[tuple[str, int]] = (),
    ) -> None:
        nodes, place = graph.nodes, graph.places
        self._names = [{node.name} for node in nodes]
        self._names += [{node.name for node in part} for part in parts.values()]
        own = _operations(graph)
        joined = [_part(own[[place[node.name] for node in part]]) for part in parts.values()]
        for small in sizes:
            layer = graph.layers[small[0]]
            joined.append(_operations(shrunk(graph, dict([small])))[place[layer.name]])
            parts = {**parts, f"{small}": [layer]}
        kinds = [n.operation for n in nodes] + [_kind(part) for part in parts.values()]
        hot = one_hot(kinds, KINDS)
        hot[len(nodes) :, KINDS.index("part")] = 1.0
        static = np.concatenate([hot, _scaled(np.array([*own, *joined]), len(nodes))], axis=1)
        self._static = torch.from_numpy(static.astype(np.float32))
        self._edges = _edges(graph, list(parts.values()))
        self._decisions = torch.arange(len(nodes), len(nodes) + len(parts))

    def data(self, removed: Collection[str], small: Sequence[bool] = ()) -> Data:
        """The graph when these operations are removed; small: which kernels have which size."""
        out = [float(bool(names) and names <= set(removed)) for names in self._names]
        out += [float(chosen) for chosen in small]
        edge_index, edge_attr = self._edges
        return Data(
            x=torch.cat([self._static, torch.tensor(out)[:, None]], dim=1),
            edge_index=edge_index,
            edge_attr=edge_attr,
            decision_index=self._decisions,
        )


def eight_features(graph: ComputationalGraph, node: Node, place: float) -> list[float]:
    """Return SageMaker's eight features of a layer, unscaled: counts and indices."""
    kernel, stride, padding = (number(node, k) for k in ("kernel_size", "stride", "padding"))
    same = float(node.attributes.get("padding") == "same" or 2 * padding == kernel - 1)
    of_kind = {
        "conv": (node.shape[0], kernel, stride, same),
        "linear": (node.shape[-1], 0, 0, 0),
        "pool": (kernel, stride, padding, 0),
    }
    settings = of_kind.get(node.operation, (0, 0, 0, 0))
    return [place, place, operation_of(node).layer_type, *settings, elements(graph, node)]


def _operations(graph: ComputationalGraph) -> np.ndarray:
    """Features of operations, not scaled `[O, F]`."""
    nodes = graph.nodes
    eight = [eight_features(graph, node, i / len(nodes)) for i, node in enumerate(nodes)]
    flops = cost_model.flops(graph)
    values: dict[str, Any] = dict(zip(EIGHT, zip(*eight, strict=True), strict=True))
    values |= {
        "width": [node.shape[0] if node.shape else 1 for node in nodes],
        "resolution": [math.prod(node.shape[1:]) for node in nodes],
        "flops share": [flops.of_operation(node.name) for node in nodes],
        "parameter share": values["footprint"],
    }
    return FEATURES.table(len(nodes), values)


def _part(rows: np.ndarray) -> np.ndarray:
    """The features of several operations together: from the first to the last, costs summed."""
    joined = rows[rows[:, FEATURES.index("footprint")].argmax()].copy()  # as its largest operation
    start, end = FEATURES.index("start"), FEATURES.index("end")
    joined[start], joined[end] = rows[:, start].min(), rows[:, end].max()
    for name in SUMMED:
        joined[FEATURES.index(name)] = rows[:, FEATURES.index(name)].sum()
    return joined


def _kind(part: Sequence[Node]) -> str:
    return part[0].operation if len(part) == 1 else "part"


def _scaled(table: np.ndarray, operations: int) -> np.ndarray:
    """Features in about [0, 1], `[N, F]`; the example has counts of up to 36,864."""
    columns = dict(zip(FEATURES, table.T, strict=True))
    for name, most in LARGEST.items():
        columns[name] = columns[name] / most
    for name, bits in BITS.items():
        columns[name] = np.log2(1 + columns[name]) / bits
    for name in ("flops share", "parameter share"):
        most = max(columns[name][:operations].max(), 1.0)
        columns[name] = np.sqrt(columns[name] / most)
    return np.stack(list(columns.values()), axis=1)


def _edges(graph: ComputationalGraph, parts: Sequence[Sequence[Node]]) -> tuple[Tensor, Tensor]:
    """Typed edges, each with its reverse: `[2, E]`, `[E, EDGES]`."""
    place, first = graph.places, len(graph.nodes)
    sets = [frozenset(node.name for node in part) for part in parts]
    within, inside, before = (EDGES.index(kind) for kind in ("in", "inside", "before"))
    pairs = [(place[read], i, 0) for i, node in enumerate(graph.nodes) for read in node.inputs]
    for p, names in enumerate(sets):
        pairs += [(place[name], first + p, within) for name in sorted(names)]
        pairs += [(first + q, first + p, inside) for q, other in enumerate(sets) if other < names]
    pairs += [(first + p, first + p + 1, before) for p, _ in enumerate(pairwise(sets))]
    return two_way(pairs, len(EDGES))
