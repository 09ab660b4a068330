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

from gnnrl.graph.cost import cost_of_units, kept_length
from gnnrl.graph.graph import ChannelGroup, ComputationalGraph, Node
from gnnrl.pruning.importance import Importance
from gnnrl.search.observations.common import first_number, two_way

KINDS = (
    "input",
    "conv",
    "linear",
    "norm",
    "activation",
    "pool",
    "add",
    "mul",
    "cat",
    "reshape",
    "pad",
    "slice",
    "group",
)
"""Operations that have a column of their own; all others share the last one, `other`."""

EDGES = ("reads", "read by", "made by", "makes", "wanted by", "wants")
STATIC = (
    "width",
    "input width",
    "resolution",
    "kernel",
    "stride",
    "groups",
    "depthwise",
    "flops share",
    "parameter share",
    "depth",
    "importance spread",
    "importance tail",
    "weight scale",
    "prior",
    "residual at 3/4",
    "residual at 1/2",
    "residual at 1/4",
)
DYNAMIC = ("keep ratio", "flops share now", "slack")


class View:
    """Observations of one network; what does not change is computed once.

    decide: layers that are decided; None: the channel groups are.  curves: what the channels of
    each group cost.  prior: keep ratios `[G]` that are thought good before any evaluation.
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
        kinds = _kinds(graph)
        shares = _Shares(graph)
        static = np.concatenate(
            [_operations(graph, shares), _groups(graph, importance, shares, curves, prior)]
        ).astype(np.float32)
        self._static = torch.from_numpy(np.concatenate([kinds, static], axis=1))
        self._edge_index, self._edge_attr = _edges(graph)
        first = {n.layer: i for i, n in reversed(list(enumerate(graph.nodes))) if n.filters}
        self._decisions = (
            torch.arange(len(graph.nodes), len(graph.nodes) + len(graph.groups))
            if decide is None
            else torch.tensor([first[name] for name in decide])
        )
        self._axes = shares.axes
        self._price = shares.price
        self._channels = _channels(graph, importance) if hierarchical else None
        self._owner = torch.from_numpy(np.repeat(np.arange(len(self._sizes)), self._sizes)) + len(
            graph.nodes
        )

    def data(self, counts: np.ndarray, order: np.ndarray, slack: float) -> Data:
        """The graph when group g keeps the first `counts[g]` of its units in `order` `[U]`.

        slack: fraction of the current cost that has to go to meet the budget (0 or less: met).
        """
        starts = np.cumsum(self._sizes) - self._sizes
        place = np.arange(len(order)) - np.repeat(starts, self._sizes)
        keep = np.zeros(len(order), dtype=bool)
        keep[order] = place < np.repeat(counts, self._sizes)
        before = np.concatenate([[0], np.cumsum(keep)])
        widths = np.array([1.0 if c is None else kept_length(c, before) / n for c, n in self._axes])
        return self._data(np.concatenate([widths, counts / self._sizes]), widths, keep, slack)

    def with_density(self, density: np.ndarray, slack: float) -> Data:
        """The graph when the decided layers keep these shares of their single weights."""
        ratio = np.ones(len(self.graph.nodes) + len(self._sizes))
        ratio[self._decisions] = density
        keep = np.ones(self.graph.num_units, dtype=bool)
        return self._data(ratio, np.ones(len(self.graph.nodes)), keep, slack)

    def _data(
        self, keep_ratio: np.ndarray, widths: np.ndarray, keep: np.ndarray, slack: float
    ) -> Data:
        now = self._price(widths)
        share = np.concatenate([now / max(now.sum(), 1e-12), np.zeros(len(self._sizes))])
        column = np.stack([keep_ratio, np.sqrt(share), np.full(len(share), slack)], axis=1)
        data = Data(
            x=torch.cat([self._static, torch.from_numpy(column.astype(np.float32))], dim=1),
            edge_index=self._edge_index,
            edge_attr=self._edge_attr,
            decision_index=self._decisions,
        )
        if self._channels is not None:
            kept = torch.from_numpy(keep.astype(np.float32))[:, None]
            data.channel_x = torch.cat([self._channels, kept], dim=1)
            data.channel_index = self._owner
        return data


class _Shares:
    """Share of the dense flops and parameters of each operation and each group."""

    def __init__(self, graph: ComputationalGraph) -> None:
        flops = [float(n.flops) for n in graph.nodes]
        parameters = [0.0 for _ in graph.nodes]
        for i, node in enumerate(graph.nodes):
            sizes = [math.prod(graph.parameters[p].shape) for p in node.parameters]
            parameters[i] = float(sum(sizes))
            flops[i] += node.positions * sizes[0] if node.positions else 0
        self.flops = np.array(flops) / max(sum(flops), 1.0)
        self.parameters = np.array(parameters) / max(sum(parameters), 1.0)
        self.axes = [(n.channels, _width(n)) for n in graph.nodes]
        index = {n.name: i for i, n in enumerate(graph.nodes)}
        self._source = np.array(
            [index.get(n.inputs[0], i) if n.inputs else i for i, n in enumerate(graph.nodes)]
        )
        self._depthwise = np.array([_depthwise(n) for n in graph.nodes])
        self.of_group = np.array([_share(graph, g) for g in graph.groups]).reshape(-1)

    def price(self, widths: np.ndarray) -> np.ndarray:
        """Flops of each operation when its width and its input's are these fractions `[O]`."""
        return self.flops * widths * np.where(self._depthwise, 1.0, widths[self._source])


def _share(graph: ComputationalGraph, group: ChannelGroup) -> float:
    """Fraction of the flops that goes when all of a group goes."""
    keep = np.ones(graph.num_units, dtype=bool)
    whole = cost_of_units(graph, keep).flops
    keep[group.start : group.start + group.size] = False
    return 1.0 - cost_of_units(graph, keep).flops / max(whole, 1)


def _width(node: Node) -> int:
    return node.shape[node.channels.axis - 1] if node.channels is not None else 1


def _depthwise(node: Node) -> bool:
    groups = node.attributes.get("groups", 1)
    return node.operation == "conv" and groups > 1 and groups == _width(node)


def _kinds(graph: ComputationalGraph) -> np.ndarray:
    """One-hot of the operation `[N, KINDS + 1]`."""
    names = [n.operation for n in graph.nodes] + ["group"] * len(graph.groups)
    column = [KINDS.index(n) if n in KINDS else len(KINDS) for n in names]
    return np.eye(len(KINDS) + 1, dtype=np.float32)[column]


def _operations(graph: ComputationalGraph, shares: _Shares) -> np.ndarray:
    """Features of operations `[O, STATIC]`."""
    width = {n.name: _width(n) for n in graph.nodes}
    table = np.zeros((len(graph.nodes), len(STATIC)))
    for i, node in enumerate(graph.nodes):
        spatial = math.prod(node.shape[1:]) if len(node.shape) > 1 else 1
        table[i, :7] = (
            math.log2(max(width[node.name], 1)) / 12,
            math.log2(max(width[node.inputs[0]], 1)) / 12 if node.inputs else 0.0,
            math.log2(max(spatial, 1)) / 16,
            first_number(node.attributes.get("kernel_size", 0)) / 7,
            first_number(node.attributes.get("stride", 0)) / 4,
            math.log2(max(int(node.attributes.get("groups", 1)), 1)) / 10,
            float(_depthwise(node)),
        )
        table[i, 9] = i / len(graph.nodes)
    table[:, 7], table[:, 8] = np.sqrt(shares.flops), np.sqrt(shares.parameters)
    return table


def _groups(
    graph: ComputationalGraph,
    importance: Importance,
    shares: _Shares,
    curves: Mapping[str, Tensor] | None,
    prior: np.ndarray | None,
) -> np.ndarray:
    """Features of channel groups `[G, STATIC]`."""
    order = {n.layer: i for i, n in enumerate(graph.nodes)}
    table = np.zeros((len(graph.groups), len(STATIC)))
    for i, group in enumerate(graph.groups):
        score = importance[group.name].double()
        mean = float(score.mean().clamp(min=1e-12))
        table[i, 0] = math.log2(group.size) / 12
        table[i, 1] = math.log2(len(group.layers)) / 6
        table[i, 9] = order[group.layers[0]] / len(graph.nodes)
        table[i, 10] = min(float(score.std(unbiased=False)) / mean, 3.0)
        table[i, 11] = min(float(score.min()) / mean, 3.0)
        table[i, 12] = math.log10(mean + 1e-6) / 3
    table[:, 7] = np.sqrt(shares.of_group)
    if prior is not None:
        table[:, 13] = np.log2(np.clip(prior, 1 / 64, 1.0)) / 6
    if curves:
        table[:, 14:17] = _curve_features(graph, curves)
    return table


def _curve_features(graph: ComputationalGraph, curves: Mapping[str, Tensor]) -> np.ndarray:
    """Residual after a quarter, half and three quarters went, over the network's mean at half."""
    points = np.ones((len(graph.groups), 3))
    for i, group in enumerate(graph.groups):
        if group.name in curves:
            curve = curves[group.name].double().numpy()
            points[i] = [curve[round(part * group.size)] for part in (0.25, 0.5, 0.75)]
    scale = max(float(points[:, 1].mean()), 1e-12)
    return np.clip(np.log10(points / scale + 1e-4) / 4, -1.0, 1.0)


def _channels(graph: ComputationalGraph, importance: Importance) -> Tensor:
    """Features of channels `[U, 3]`: score over the group's mean, its logarithm, its rank."""
    parts = []
    for group in graph.groups:
        score = importance[group.name].float()
        relative = score / score.mean().clamp(min=1e-12)
        rank = score.argsort().argsort().float() / max(group.size - 1, 1)
        log = (relative.clamp(min=1e-3)).log10() / 3
        parts.append(torch.stack([relative.clamp(max=4.0) / 4, log, rank], dim=1))
    return torch.cat(parts)


def _edges(graph: ComputationalGraph) -> tuple[Tensor, Tensor]:
    """Typed edges, each with its reverse `[2, E]`, `[E, EDGES]`."""
    index = {n.name: i for i, n in enumerate(graph.nodes)}
    pairs: list[tuple[int, int, int]] = []
    owner = np.repeat(np.arange(len(graph.groups)), [g.size for g in graph.groups])
    for i, node in enumerate(graph.nodes):
        pairs += [(index[read], i, 0) for read in node.inputs if read in index]
        source = graph.nodes[index[node.inputs[0]]] if node.inputs else None
        for channels, kind in ((node.filters, 2), (source.channels if source else None, 4)):
            if channels is not None and node.positions:
                units = channels.units
                groups = np.unique(owner[units[units >= 0]]) if len(owner) else []
                pairs += [(len(graph.nodes) + int(g), i, kind) for g in groups]
    return two_way(pairs, len(EDGES))
