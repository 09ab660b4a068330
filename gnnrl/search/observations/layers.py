"""A network as the agent sees it that decides which layers go.

Nodes are operations and the parts that can go.  Operations are joined as data flows, a part to its
operations and to the parts inside it.  Every node has the eight features of SageMaker's example of
N2N, brought to about [-1, 1]: a part of several operations those of all of them together.
"""

# N: nodes (operations, then parts)   O: operations   P: parts   E: edges

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.search.observations.common import first_number, two_way

TYPES = {"conv": 1, "linear": 2, "activation": 3, "norm": 4, "pool": 5}
"""Type of a layer as the example numbers it; 0 for all else."""

FEATURES = ("start", "end", "type", "a", "b", "c", "d", "footprint")
"""The example's.  Convolution: filters, kernel, stride, whether the padding keeps the size.
Linear: outputs.  Pooling: size, stride, padding.  Footprint: parameters."""

KINDS = (*TYPES, "input", "add", "cat", "part")
"""Operations that have a column of their own; all others share the last one."""

MORE = ("width", "resolution", "flops share", "parameter share", "gone")
EDGES = ("reads", "read by", "in", "holds", "inside", "around", "before", "after")


class LayerView:
    """Observations of one network whose `parts` can go."""

    def __init__(self, graph: ComputationalGraph, parts: Mapping[str, Sequence[Node]]) -> None:
        index = {node.name: i for i, node in enumerate(graph.nodes)}
        self._names = [{node.name} for node in graph.nodes]
        self._names += [{node.name for node in part} for part in parts.values()]
        own = [_operation(graph, node, i / len(index)) for i, node in enumerate(graph.nodes)]
        table = [*own, *(_part([own[index[n.name]] for n in part]) for part in parts.values())]
        kinds = [n.operation for n in graph.nodes] + [_kind(part) for part in parts.values()]
        column = [KINDS.index(kind) if kind in KINDS else len(KINDS) for kind in kinds]
        hot = np.eye(len(KINDS) + 1)[column]
        hot[len(index) :, KINDS.index("part")] = 1.0
        self._static = torch.from_numpy(np.concatenate([hot, _scaled(table)], 1).astype(np.float32))
        self._edges = _edges(graph, list(parts.values()), index)
        self._decisions = torch.arange(len(index), len(index) + len(parts))

    def data(self, gone: Collection[str]) -> Data:
        """The graph when these operations are gone."""
        left = [float(bool(names) and names <= set(gone)) for names in self._names]
        edge_index, edge_attr = self._edges
        return Data(
            x=torch.cat([self._static, torch.tensor(left)[:, None]], dim=1),
            edge_index=edge_index,
            edge_attr=edge_attr,
            decision_index=self._decisions,
        )


def eight_features(graph: ComputationalGraph, node: Node, place: int) -> list[float]:
    """The example's features of a layer, as it has them: counts and indices, not scaled."""
    kernel, stride = (first_number(node.attributes.get(k, 0)) for k in ("kernel_size", "stride"))
    padding = first_number(node.attributes.get("padding", 0))
    same = float(node.attributes.get("padding") == "same" or 2 * padding == kernel - 1)
    of_kind = {
        "conv": (node.shape[0], kernel, stride, same),
        "linear": (node.shape[-1], 0, 0, 0),
        "pool": (kernel, stride, padding, 0),
    }
    sizes = [math.prod(graph.parameters[p].shape) for p in node.parameters]
    a, b, c, d = of_kind.get(node.operation, (0, 0, 0, 0))
    return [place, place, TYPES.get(node.operation, 0), a, b, c, d, sum(sizes)]


def _operation(graph: ComputationalGraph, node: Node, place: float) -> list[float]:
    """The eight features, then width, pixels, flops and parameters."""
    eight = eight_features(graph, node, 0)
    eight[0] = eight[1] = place
    weight = math.prod(graph.parameters[node.parameters[0]].shape) if node.positions else 0
    width = node.shape[0] if node.shape else 1
    flops = node.flops + node.positions * weight
    return [*eight, width, math.prod(node.shape[1:]), flops, eight[-1]]


def _part(rows: Sequence[Sequence[float]]) -> list[float]:
    """The features of several operations together: from the first to the last, summed costs."""
    table = np.array(rows)
    joined = table[table[:, 7].argmax()].copy()  # as its heaviest operation
    joined[0], joined[1] = table[:, 0].min(), table[:, 1].max()
    joined[[7, 10, 11]] = table[:, [7, 10, 11]].sum(0)
    return joined.tolist()


def _kind(part: Sequence[Node]) -> str:
    return part[0].operation if len(part) == 1 else "part"


def _scaled(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Features in about [0, 1], `[N, 12]`; the example hands out counts of up to 36,864."""
    table = np.array(rows, dtype=np.float64)
    for column, most in ((2, 5), (4, 7), (5, 4)):
        table[:, column] /= most
    for column, bits in ((3, 12), (7, 24), (8, 12), (9, 16)):
        table[:, column] = np.log2(1 + table[:, column]) / bits
    operations = table[:, 0] == table[:, 1]
    for column in (10, 11):
        table[:, column] = np.sqrt(table[:, column] / max(table[operations, column].max(), 1.0))
    return table


def _edges(
    graph: ComputationalGraph, parts: Sequence[Sequence[Node]], index: Mapping[str, int]
) -> tuple[Tensor, Tensor]:
    """Typed edges, each with its reverse: `[2, E]`, `[E, EDGES]`."""
    sets = [frozenset(node.name for node in part) for part in parts]
    first = len(index)
    pairs = [(index[read], i, 0) for i, node in enumerate(graph.nodes) for read in node.inputs]
    for p, inside in enumerate(sets):
        pairs += [(index[name], first + p, 2) for name in sorted(inside)]
        pairs += [(first + q, first + p, 4) for q, other in enumerate(sets) if other < inside]
    pairs += [(first + p, first + p + 1, 6) for p, _ in enumerate(pairwise(sets))]
    return two_way(pairs, len(EDGES))
