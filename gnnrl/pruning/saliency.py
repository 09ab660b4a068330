"""Criteria of pruning before training: which filters matter, by weights and first gradients.

Each scores the weights of a layer and sums them over a filter, then over the filters that go
together; higher = keep.  They are ranked over the whole network.
"""

# N: images   U: units

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.tracing.fx_utils import attribute
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.importance import Importance, filters, rows

Examples = Callable[[], tuple[Tensor, Tensor]]

CRITERIA = ("magnitude", "magnitude_sign", "snip", "grasp", "synflow")
FROM_INITIAL = ("magnitude_sign",)  # those that need the network as it was before training
TEMPERATURE = 200.0  # of the logits (Wang et al. 2020, GraSP, published code)
ROUNDS = 100  # of SynFlow (Tanaka et al. 2020, section 6)


@dataclass(frozen=True)
class Scored:
    """Importance, and the forward images that it took (a backward pass counts twice)."""

    importance: Importance
    forward_images: int = 0


def score(
    criterion: str,
    network: nn.Module,
    graph: ComputationalGraph,
    examples: Examples,
    initial: nn.Module | None = None,
) -> Scored:
    """By name, a member of CRITERIA.

    examples: gives labelled training images, for snip and grasp.  initial: the network before it
    was trained, for magnitude_sign.
    """
    if criterion == "magnitude":
        return Scored(magnitude(network, graph))
    if criterion == "magnitude_sign":
        if initial is None:
            raise UserError(
                "magnitude_sign compares weights with those they started from: give the initial "
                "network"
            )
        return Scored(magnitude_sign(network, graph, initial))
    if criterion == "synflow":
        return Scored(synflow(network, graph), 3 * ROUNDS)
    images, labels = examples()
    if criterion == "snip":
        return Scored(snip(network, graph, images, labels), 3 * len(images))
    return Scored(grasp(network, graph, images, labels), 9 * len(images))


def magnitude(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Mean absolute weight of a filter, not normalised by its layer (the thesis's criterion)."""
    return _mean(graph, lambda node: filters(network, node).abs().mean(1))


def magnitude_sign(network: nn.Module, graph: ComputationalGraph, initial: nn.Module) -> Importance:
    """Mean absolute weight, those counted as zero that changed their sign in training.

    After Zhou et al. 2019, section 3 (the signs of the initial weights are what matters), weight by
    weight; a filter's mean before the sign, as the thesis has it, is near zero whatever happens.
    """

    def per_filter(node: Node) -> Tensor:
        now, before = filters(network, node), filters(initial, node)
        return torch.where(now.sign() == before.sign(), now.abs(), 0.0).mean(1)

    return _mean(graph, per_filter)


def snip(
    network: nn.Module, graph: ComputationalGraph, images: Tensor, labels: Tensor
) -> Importance:
    """Sensitivity of the loss to each weight's presence, |w dL/dw| (Lee et al. 2019, Eq. 5)."""
    names, weights = _weights(network, graph)
    with torch.enable_grad(), _as_trained(network):
        loss = F.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, weights)
    products = [(w * g).detach().abs() for w, g in zip(weights, gradients, strict=True)]
    return _sum(graph, dict(zip(names, products, strict=True)))


def grasp(
    network: nn.Module, graph: ComputationalGraph, images: Tensor, labels: Tensor
) -> Importance:
    """What a weight does for gradient flow, w (H g) (Wang et al. 2020, Eq. 8; higher = keep)."""
    names, weights = _weights(network, graph)
    with torch.enable_grad(), _as_trained(network):
        loss = F.cross_entropy(network(images) / TEMPERATURE, labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        flow = sum((g * g.detach()).sum() for g in gradients)
        assert isinstance(flow, Tensor)
        curved = torch.autograd.grad(flow, weights)
    products = [(w * h).detach() for w, h in zip(weights, curved, strict=True)]
    return _sum(graph, dict(zip(names, products, strict=True)))


def synflow(network: nn.Module, graph: ComputationalGraph, rounds: int = ROUNDS) -> Importance:
    """When a filter goes as SynFlow prunes down to one, in `rounds` (Tanaka et al. 2020, Alg. 1).

    The synaptic flow of a weight is w dR/dw of R, the sum of what the network makes of an image of
    ones when all weights are positive and nothing is added; no data are looked at.  A filter's
    score is the round in which it goes, and within a round its share of the flow.
    """
    flow = _positive(network)
    units, left = graph.num_units, torch.ones(graph.num_units, dtype=torch.bool)
    total = torch.zeros(units, dtype=torch.float64)
    image = torch.ones(1, *graph.input_shape, dtype=torch.float64)
    for done in range(1, rounds + 1):
        flowing = _flow(flow, graph, image)
        share = flowing / flowing[left].max().clamp(min=1e-300)
        total[left] = done + share[left].clamp(0.0, 1.0) * 0.999
        keep = max(1, round(units ** (1.0 - done / rounds)))
        going = share.masked_fill(~left, torch.inf).argsort(stable=True)[: int(left.sum()) - keep]
        left[going] = False
        _silence(flow, graph, going)
    return _split(graph, total)


def _flow(network: nn.Module, graph: ComputationalGraph, image: Tensor) -> Tensor:
    names, weights = _weights(network, graph)
    with torch.enable_grad():
        gradients = torch.autograd.grad(network(image).sum(), weights)
    products = [(w * g).detach() for w, g in zip(weights, gradients, strict=True)]
    scored = _sum(graph, dict(zip(names, products, strict=True)))
    return torch.cat([scored[group.name] for group in graph.groups])


def _positive(network: nn.Module) -> nn.Module:
    """A copy, in double precision, that multiplies by absolute values and adds nothing."""
    twin = copy.deepcopy(network).cpu().double().eval()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(parameter.abs() if parameter.ndim > 1 else parameter)
            if name.rpartition(".")[2] == "bias":
                parameter.zero_()
        for module in twin.modules():
            if isinstance(module, _BatchNorm):
                if module.weight is not None:
                    module.weight.abs_()
                if module.running_mean is not None:
                    module.running_mean.zero_()
    return twin


def _silence(network: nn.Module, graph: ComputationalGraph, units: Tensor) -> None:
    """Set the filters of these units to zero."""
    gone = set(units.tolist())
    for node in graph.layers.values():
        mine = [i for i, unit in enumerate(node.filters.units) if int(unit) in gone]
        weight = attribute(network, node.parameters[0])
        if mine and "transpose" not in str(node.attributes["type"]).lower():
            with torch.no_grad():
                weight[mine] = 0.0


def _weights(network: nn.Module, graph: ComputationalGraph) -> tuple[list[str], list[Tensor]]:
    """The weights of all layers that make channels which can go."""
    nodes = [node for node in graph.layers.values() if (node.filters.units >= 0).any()]
    names = [node.parameters[0] for node in nodes]
    return names, [attribute(network, name) for name in names]


def _as_trained(network: nn.Module) -> object:
    """Batch norm as in training, dropout off, nothing remembered."""
    return batch_statistics(network.eval())


def _sum(graph: ComputationalGraph, by_name: Mapping[str, Tensor]) -> Importance:
    """Scores of single weights, summed over filters and over the layers of a group."""
    total = torch.zeros(graph.num_units, dtype=torch.float64)
    for node in graph.layers.values():
        units = torch.from_numpy(np.asarray(node.filters.units))
        if node.parameters[0] in by_name:
            free = units >= 0
            total.index_add_(0, units[free], _row_sums(by_name[node.parameters[0]], node)[free])
    return _split(graph, total)


def _row_sums(weights: Tensor, node: Node) -> Tensor:
    return rows(weights, node).double().sum(1)


def _mean(graph: ComputationalGraph, per_filter: Callable[[Node], Tensor]) -> Importance:
    """The mean over all filters that go with a unit."""
    total, count = torch.zeros(2, graph.num_units, dtype=torch.float64)
    for node in graph.layers.values():
        units = torch.from_numpy(np.asarray(node.filters.units))
        free = units >= 0
        if free.any():
            total.index_add_(0, units[free], per_filter(node).double()[free])
            count.index_add_(0, units[free], torch.ones(int(free.sum()), dtype=torch.float64))
    return _split(graph, total / count.clamp(min=1))


def _split(graph: ComputationalGraph, units: Tensor) -> Importance:
    return Importance({g.name: units[g.start : g.start + g.size] for g in graph.groups})
