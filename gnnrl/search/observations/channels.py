"""The computational graph as an agent sees it.

Nodes are operations and channel groups.  Operations are joined as data flows; a group is joined
to the layers that make its channels and to those that read them, and is what the agent decides.
In the hierarchical view (GNN-RL's two levels) every channel is a point of its own below its group.
"""

# N: nodes (operations, then groups)   O: operations   G: groups   U: units   E: edges

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.graph import cost_model
from gnnrl.graph.cost_model import AxisCosts, elements, full_length, kept_length, units_before
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.operations import OPERATIONS
from gnnrl.pruning.importance import Importance
from gnnrl.search.observations.common import (
    Columns,
    columns_digest,
    number,
    one_hot,
    two_way,
)

KINDS = (*(name for name, operation in OPERATIONS.items() if operation.has_column), "group")
"""Kinds of nodes that have a column of their own; all others share the last one."""

EDGES = ("reads", "read by", "made by", "makes", "wanted by", "wants")
STATIC = Columns(
    "width; input width; resolution; kernel; stride; groups; depthwise; flops share; "
    "parameter share; depth; importance spread; importance tail; weight scale; prior; "
    "residual at 3/4; residual at 1/2; residual at 1/4".split("; ")
)
"""Columns that follow the kinds.  Of a group, "input width" is the number of its layers."""

DYNAMIC = Columns(("keep ratio", "flops share now", "slack"))
"""Columns that follow the static ones and change as channels are removed."""

SCORES = ("relative score", "log score", "rank")
"""Columns of a channel: score over its group's mean, its logarithm, its rank; then: is kept."""

FEATURES = columns_digest(KINDS, EDGES, STATIC, DYNAMIC, SCORES)
"""Which features there are, in which order: an agent that was made for others is refused."""

REMOVED = {"residual at 3/4": 0.25, "residual at 1/2": 0.5, "residual at 1/4": 0.75}
"""Fraction of a group's channels that is removed, by the column of the residual."""


class View:
    """Observations of one network; what does not change is computed once.

    decide: layers that are decided; None: the channel groups are.  curves: what removing the
    channels of each group costs.  prior: keep ratios `[G]` that are thought good before any
    evaluation.
    """

    def __init__(
        self,
        graph: ComputationalGraph,
        importance: Importance,
        hierarchical: bool = True,
        decide: Sequence[str] | None = None,
        curves: Mapping[str, Tensor] | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        self.graph = graph
        self._sizes = np.array([g.size for g in graph.groups])
        flops = cost_model.flops(graph)
        shares = _shares([flops.of_operation(node.name) for node in graph.nodes])
        kinds = [n.operation for n in graph.nodes] + ["group"] * len(graph.groups)
        groups = _groups(graph, importance, flops, curves, prior)
        static = np.concatenate([_operations(graph, shares), groups])
        static = np.concatenate([one_hot(kinds, KINDS), static], axis=1)
        self._static = torch.from_numpy(static.astype(np.float32))
        self._edge_index, self._edge_attr = _edges(graph)
        first = {n.layer: i for i, n in reversed(list(enumerate(graph.nodes))) if n.filters}
        self._decisions = (
            torch.arange(len(graph.nodes), len(graph.nodes) + len(graph.groups))
            if decide is None
            else torch.tensor([first[name] for name in decide])
        )
        self._flops = shares
        self._depthwise = np.array([_depthwise(node) for node in graph.nodes])
        self._channels = _channels(graph, importance) if hierarchical else None
        self._owner = torch.from_numpy(_owners(graph)) + len(graph.nodes)

    def data(self, counts: np.ndarray, order: np.ndarray, slack: float) -> Data:
        """The graph when group g keeps the first `counts[g]` of its units in `order` `[U]`.

        slack: fraction of the current cost that must be removed to meet the budget (0 or less: it
        is met).
        """
        starts = np.cumsum(self._sizes) - self._sizes
        place = np.arange(len(order)) - np.repeat(starts, self._sizes)
        keep = np.zeros(len(order), dtype=bool)
        keep[order] = place < np.repeat(counts, self._sizes)
        before = units_before(keep)
        axes = [node.channels for node in self.graph.nodes]
        widths = [1.0 if a is None else kept_length(a, before) / full_length(a) for a in axes]
        keep_ratio = np.concatenate([widths, counts / self._sizes])
        return self._data(keep_ratio, np.array(widths), keep, slack)

    def with_density(self, density: np.ndarray, slack: float) -> Data:
        """The graph when the decided layers keep these fractions of their single weights."""
        ratio = np.ones(len(self.graph.nodes) + len(self._sizes))
        ratio[self._decisions] = density
        keep = np.ones(self.graph.num_units, dtype=bool)
        return self._data(ratio, np.ones(len(self.graph.nodes)), keep, slack)

    def _data(
        self, keep_ratio: np.ndarray, widths: np.ndarray, keep: np.ndarray, slack: float
    ) -> Data:
        read = np.where(self._depthwise, 1.0, widths[np.array(self.graph.sources)])
        now = self._flops * widths * read  # about the flops of each operation
        share = np.concatenate([now / max(now.sum(), 1e-12), np.zeros(len(self._sizes))])
        values = {"keep ratio": keep_ratio, "flops share now": np.sqrt(share), "slack": slack}
        dynamic = DYNAMIC.table(len(share), values).astype(np.float32)
        data = Data(
            x=torch.cat([self._static, torch.from_numpy(dynamic)], dim=1),
            edge_index=self._edge_index,
            edge_attr=self._edge_attr,
            decision_index=self._decisions,
        )
        if self._channels is not None:
            kept = torch.from_numpy(keep.astype(np.float32))[:, None]
            data.channel_x = torch.cat([self._channels, kept], dim=1)
            data.channel_index = self._owner
        return data


def _shares(amounts: Sequence[float]) -> np.ndarray:
    """Amounts as fractions of their sum."""
    return np.array(amounts, dtype=np.float64) / max(sum(amounts), 1.0)


def _width(node: Node) -> int:
    return 1 if node.channels is None else node.width


def _depthwise(node: Node) -> bool:
    groups = node.attributes.get("groups", 1)
    return node.operation == "conv" and groups > 1 and groups == _width(node)


def _log(amount: float, bits: int) -> float:
    """An amount on a logarithmic scale on which 2 ** bits is one."""
    return math.log2(max(amount, 1)) / bits


def _operations(graph: ComputationalGraph, flops: np.ndarray) -> np.ndarray:
    """Features of operations `[O, STATIC]`; flops: share of each `[O]`."""
    nodes = graph.nodes
    width = {node.name: _width(node) for node in nodes}
    values = {
        "width": [_log(width[n.name], 12) for n in nodes],
        "input width": [_log(width[n.inputs[0]], 12) if n.inputs else 0.0 for n in nodes],
        "resolution": [_log(math.prod(n.shape[1:]), 16) for n in nodes],
        "kernel": [number(n, "kernel_size") / 7 for n in nodes],
        "stride": [number(n, "stride") / 4 for n in nodes],
        "groups": [_log(int(n.attributes.get("groups", 1)), 10) for n in nodes],
        "depthwise": [_depthwise(n) for n in nodes],
        "flops share": np.sqrt(flops),
        "parameter share": np.sqrt(_shares([elements(graph, n) for n in nodes])),
        "depth": [i / len(nodes) for i in range(len(nodes))],
    }
    return STATIC.table(len(nodes), values)


def _groups(
    graph: ComputationalGraph,
    importance: Importance,
    flops: AxisCosts,
    curves: Mapping[str, Tensor] | None,
    prior: np.ndarray | None,
) -> np.ndarray:
    """Features of channel groups `[G, STATIC]`."""
    place = {n.layer: i for i, n in enumerate(graph.nodes)}
    groups = graph.groups
    scores = [importance[group.name].double() for group in groups]
    means = [float(score.mean().clamp(min=1e-12)) for score in scores]
    spreads = [float(score.std(unbiased=False)) for score in scores]
    values = {
        "width": [_log(group.size, 12) for group in groups],
        "input width": [_log(len(group.layers), 6) for group in groups],
        "flops share": np.sqrt(_removed(graph, flops)),
        "depth": [place[group.layers[0]] / len(graph.nodes) for group in groups],
        "importance spread": [min(s / m, 3.0) for s, m in zip(spreads, means, strict=True)],
        "importance tail": [
            min(float(s.min()) / m, 3.0) for s, m in zip(scores, means, strict=True)
        ],
        "weight scale": [math.log10(mean + 1e-6) / 3 for mean in means],
    }
    if prior is not None:
        values["prior"] = np.log2(np.clip(prior, 1 / 64, 1.0)) / 6
    if curves:
        values |= _residuals(graph, curves)
    return STATIC.table(len(groups), values)


def _removed(graph: ComputationalGraph, flops: AxisCosts) -> np.ndarray:
    """Fraction of the flops that is saved when all of a group is removed `[G]`."""
    keep = np.ones((len(graph.groups), graph.num_units), dtype=bool)
    for row, group in zip(keep, graph.groups, strict=True):
        row[group.start : group.start + group.size] = False
    whole = max(flops.without(()), 1)
    return np.array([1.0 - flops.of_units(row) / whole for row in keep])


def _residuals(graph: ComputationalGraph, curves: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Residual `[G]` after a quarter, half and three quarters of the channels are removed, over
    the network's mean at half, by column."""
    points = {name: np.ones(len(graph.groups)) for name in REMOVED}
    for i, group in enumerate(graph.groups):
        if group.name in curves:
            curve = curves[group.name].double().numpy()
            for name, part in REMOVED.items():
                points[name][i] = curve[round(part * group.size)]
    scale = max(float(points["residual at 1/2"].mean()), 1e-12)
    return {
        name: np.clip(np.log10(values / scale + 1e-4) / 4, -1.0, 1.0)
        for name, values in points.items()
    }


def _channels(graph: ComputationalGraph, importance: Importance) -> Tensor:
    """Features of channels `[U, SCORES]`."""
    parts = []
    for group in graph.groups:
        score = importance[group.name].float()
        relative = score / score.mean().clamp(min=1e-12)
        rank = score.argsort().argsort().float() / max(group.size - 1, 1)
        log = (relative.clamp(min=1e-3)).log10() / 3
        parts.append(torch.stack([relative.clamp(max=4.0) / 4, log, rank], dim=1))
    return torch.cat(parts)


def _owners(graph: ComputationalGraph) -> np.ndarray:
    """The group of each unit `[U]`."""
    return np.repeat(np.arange(len(graph.groups)), [group.size for group in graph.groups])


def _edges(graph: ComputationalGraph) -> tuple[Tensor, Tensor]:
    """Typed edges, each with its reverse `[2, E]`, `[E, EDGES]`."""
    pairs: list[tuple[int, int, int]] = []
    owner = _owners(graph)
    for i, node in enumerate(graph.nodes):
        pairs += [(graph.places[name], i, 0) for name in node.inputs if name in graph.places]
        source = graph.nodes[graph.sources[i]].channels if node.inputs else None
        for channels, kind in ((node.filters, "made by"), (source, "wanted by")):
            if channels is not None and node.positions:
                units = channels.units
                groups = sorted({int(owner[unit]) for unit in units[units >= 0]})
                pairs += [(len(graph.nodes) + g, i, EDGES.index(kind)) for g in groups]
    return two_way(pairs, len(EDGES))
