"""Importance: one score for each channel of each group, higher = keep.

A criterion scores the filters of a layer; a channel's score is the sum over the layers of its
group (every filter that is removed with the channel).
"""

# U: units   O: filters of a layer   I: weights of one filter

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.pruning.criteria import CRITERIA
from gnnrl.pruning.orthogonality import rise_without_each_row
from gnnrl.registry import named
from gnnrl.tracing.fx_utils import attribute


@dataclass(frozen=True)
class Importance(Mapping[str, Tensor]):
    """scores: group name → `[size]`, finite, higher = keep."""

    scores: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, score in self.scores.items():
            if not torch.isfinite(score).all():
                raise UserError(
                    f"importance of group {name!r} is not finite; the weights hold NaN or infinity"
                )

    def __getitem__(self, group: str) -> Tensor:
        return self.scores[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of_units(cls, graph: ComputationalGraph, scores: Tensor) -> Importance:
        """From one score for each unit `[U]`."""
        return cls({g.name: scores[g.start : g.start + g.size] for g in graph.groups})


def over_layers(
    graph: ComputationalGraph,
    score: Callable[[Node], Tensor],
    *,
    mean: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Importance:
    """Sum, or mean, of the scores of all filters that are removed with a unit.

    score: gives a score for each filter of a layer `[O]`.  dtype: of the sums.
    """
    total, count = torch.zeros(2, graph.num_units, dtype=dtype)
    for node in graph.layers.values():
        units = torch.from_numpy(node.filter_units)
        free = units >= 0
        if free.any():
            total.index_add_(0, units[free], score(node).to(dtype)[free])
            count.index_add_(0, units[free], torch.ones(int(free.sum()), dtype=dtype))
    return Importance.of_units(graph, total / count.clamp(min=1) if mean else total)


def l1(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Sum of absolute weights of a filter (Li et al. 2017, section 3.1)."""
    return over_layers(graph, lambda node: filters(network, node).abs().sum(1))


def l2(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Euclidean norm of a filter."""
    return over_layers(graph, lambda node: filters(network, node).norm(dim=1))


def l1_normalised(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """L1 divided by the layer's mean, so that layers can be compared."""

    def score(node: Node) -> Tensor:
        norms = filters(network, node).abs().sum(1)
        return norms / norms.mean().clamp(min=1e-12)

    return over_layers(graph, score)


def fpgm(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Distance to the layer's other filters: those near the geometric median can be replaced
    (He et al. 2019, FPGM, Eq. 5)."""

    def score(node: Node) -> Tensor:
        rows = filters(network, node)
        return torch.cdist(rows, rows).sum(1)

    return over_layers(graph, score)


def batch_norm(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Absolute scale of the normalisation that follows (Liu et al. 2017, network slimming).

    A layer without a normalisation of its own counts with the mean of its L1.
    """
    total = torch.zeros(graph.num_units)
    seen = torch.zeros(graph.num_units, dtype=torch.bool)
    for node in graph.nodes:
        if node.operation == "norm" and node.channels is not None and node.parameters:
            weight = attribute(network, node.parameters[0]).detach().abs().float().cpu()
            units = torch.from_numpy(node.channels.units)
            if weight.ndim == 1 and len(weight) == len(units):
                free = units >= 0
                total.index_add_(0, units[free], weight[free])
                seen[units[free]] = True
    rest = l1_normalised(network, graph)
    fallback = torch.cat([rest[g.name] for g in graph.groups]) if graph.groups else total
    return Importance.of_units(graph, torch.where(seen, total, fallback))


def random(network: nn.Module, graph: ComputationalGraph, seed: int = 0) -> Importance:
    """Scores drawn uniformly: the control that every criterion has to beat."""
    generator = torch.Generator().manual_seed(seed)
    return Importance.of_units(graph, torch.rand(graph.num_units, generator=generator))


def orthogonality(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """How much worse the layer's orthogonality score becomes without the filter.

    The score is that of the thesis (`gnnrl.pruning.orthogonality`), after Lee et al. 2020.
    """
    return over_layers(graph, lambda node: rise_without_each_row(filters(network, node)))


def importance(name: str, network: nn.Module, graph: ComputationalGraph) -> Importance:
    """By name: a key of CRITERIA, or `package.module:function`.

    The function gets the network and its graph and returns scores `[size]` by group name.
    """
    scores = named(name, CRITERIA, "importance")(network, graph)
    return scores if isinstance(scores, Importance) else Importance(dict(scores))


def filters(network: nn.Module, node: Node) -> Tensor:
    """Weights of a layer as rows, `[filters, weights of one filter]`."""
    return rows(attribute(network, node.parameters[0]).detach(), node)


def rows(weight: Tensor, node: Node) -> Tensor:
    """A tensor of the shape of a layer's weight, one row for each filter."""
    weight = weight.float().cpu()
    if "transpose" in str(node.attributes["type"]).lower():
        groups = int(node.attributes.get("groups", 1))
        split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return split.permute(0, 2, 1, 3).reshape(groups * weight.shape[1], -1)
    return weight.flatten(1)
