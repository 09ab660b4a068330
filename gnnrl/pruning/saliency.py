"""Criteria that need more than the weights: labelled images, or the initial network.

Each scores the weights of a layer and sums them over a filter, then over the filters that are
removed together; higher = keep.  All but `taylor` are ranked over the whole network.
"""

# N: images   U: units

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.criteria import FROM_INITIAL, ON_EXAMPLES, ON_WEIGHTS, ROUNDS
from gnnrl.pruning.importance import Importance, filters, over_layers, rows
from gnnrl.registry import imported
from gnnrl.tasks import nested
from gnnrl.tasks.base import Targets, Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.tracing.fx_utils import attribute

Examples = Callable[[], tuple[Tensor, Targets]]


TEMPERATURE = 200.0  # of the logits (Wang et al. 2020, GraSP, published code)


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
    task: Task = CLASSIFICATION,
) -> Scored:
    """By name, a member of SALIENCIES.

    examples: gives training images `[N, C, H, W]` and their labels.  initial: the network before
    training; raises `UserError` where the criterion needs it and it is missing.  task: whose loss
    it is.
    """
    if criterion in ON_EXAMPLES:
        path, passes = ON_EXAMPLES[criterion]
        images, labels = examples()
        scores = imported(path, "importance")(network, graph, images, labels, task)
        return Scored(scores, passes * len(images))
    if criterion in FROM_INITIAL:
        path = FROM_INITIAL[criterion]
        return Scored(imported(path, "importance")(network, graph, started(criterion, initial)))
    path, cost = ON_WEIGHTS[criterion]
    return Scored(imported(path, "importance")(network, graph), cost)


def started(criterion: str, initial: nn.Module | None) -> nn.Module:
    """Return the network before training; raise `UserError` where it is missing."""
    if initial is None:
        raise UserError(
            f"{criterion} compares weights with those they started from: give the initial network"
        )
    return initial


def magnitude(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Mean absolute weight of a filter, not normalised by its layer (the thesis's criterion)."""
    return _mean(graph, lambda node: filters(network, node).abs().mean(1))


def magnitude_normalised(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Mean absolute weight of a filter over that of its layer, so that layers can be compared."""
    return _mean(graph, lambda node: normalised(filters(network, node).abs().mean(1)))


def magnitude_local(network: nn.Module, graph: ComputationalGraph) -> Importance:
    """Share of the filters of its layer that are smaller: every layer keeps the same fraction."""
    return _mean(graph, lambda node: local(filters(network, node).abs().mean(1)))


def normalised(score: Tensor) -> Tensor:
    """Scores of a layer over their mean, so that layers can be compared."""
    return score / score.mean().clamp(min=1e-12)


def local(score: Tensor) -> Tensor:
    """Share of the layer's scores that are smaller."""
    return score.argsort(stable=True).argsort().double() / len(score)


def magnitude_sign(network: nn.Module, graph: ComputationalGraph, initial: nn.Module) -> Importance:
    """Mean absolute weight, those counted as zero that changed their sign in training.

    After Zhou et al. 2019, section 3 (the signs of the initial weights are what matters), weight by
    weight; a filter's mean before the sign, as the thesis has it, is near zero whatever happens.
    """

    def per_filter(node: Node) -> Tensor:
        return with_same_sign(filters(network, node), filters(initial, node)).mean(1)

    return _mean(graph, per_filter)


def with_same_sign(now: Tensor, before: Tensor) -> Tensor:
    """Absolute weights, zero where training changed the sign."""
    return torch.where(now.sign() == before.sign(), now.abs(), 0.0)


def snip(
    network: nn.Module,
    graph: ComputationalGraph,
    images: Tensor,
    labels: Targets,
    task: Task = CLASSIFICATION,
) -> Importance:
    """Sensitivity of the loss to each weight's presence, |w dL/dw| (Lee et al. 2019, Eq. 5)."""
    products = times_gradient(network, _named(graph), images, labels, task)
    return _sum(graph, {name: product.abs() for name, product in products.items()})


def taylor(
    network: nn.Module,
    graph: ComputationalGraph,
    images: Tensor,
    labels: Targets,
    task: Task = CLASSIFICATION,
) -> Importance:
    """Squared first-order change of the loss without a filter (Molchanov et al. 2019, Eq. 8)."""
    products = times_gradient(network, _named(graph), images, labels, task)
    return over_layers(graph, lambda node: _row_sums(products, node).square(), dtype=torch.float64)


def grasp(
    network: nn.Module,
    graph: ComputationalGraph,
    images: Tensor,
    labels: Targets,
    task: Task = CLASSIFICATION,
) -> Importance:
    """What a weight does for gradient flow, w (H g) (Wang et al. 2020, Eq. 8; higher = keep)."""
    names, weights = _weights(network, graph)
    with torch.enable_grad(), _as_trained(network):

        def cooled(x: Tensor) -> object:
            return nested.mapped(lambda logits: logits / TEMPERATURE, network(x))

        loss, _ = task.training_loss(cooled, images, labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        flow = sum((g * g.detach()).sum() for g in gradients)
        assert isinstance(flow, Tensor)
        curved = torch.autograd.grad(flow, weights)
    return _sum(graph, _products(names, weights, curved))


def synflow(network: nn.Module, graph: ComputationalGraph, rounds: int = ROUNDS) -> Importance:
    """When SynFlow removes a filter as it prunes to one in `rounds` (Tanaka et al. 2020, Alg. 1).

    The synaptic flow of a weight is w dR/dw of R, the sum of the network's outputs for an image of
    ones when all weights are positive and nothing is added; no data are used.  A filter's score is
    the round in which it is removed, and within a round its share of the flow.
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
        smallest = share.masked_fill(~left, torch.inf).argsort(stable=True)
        removed = smallest[: int(left.sum()) - keep]
        left[removed] = False
        _silence(flow, graph, removed)
    return Importance.of_units(graph, total)


def _flow(network: nn.Module, graph: ComputationalGraph, image: Tensor) -> Tensor:
    names, weights = _weights(network, graph)
    with torch.enable_grad():
        gradients = torch.autograd.grad(network(image).sum(), weights)
    scored = _sum(graph, _products(names, weights, gradients))
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
    removed = set(units.tolist())
    for node in graph.layers.values():
        mine = [i for i, unit in enumerate(node.filter_units) if int(unit) in removed]
        weight = attribute(network, node.parameters[0])
        if mine and "transpose" not in str(node.attributes["type"]).lower():
            with torch.no_grad():
                weight[mine] = 0.0


def _weights(network: nn.Module, graph: ComputationalGraph) -> tuple[list[str], list[Tensor]]:
    names = _named(graph)
    return names, [attribute(network, name) for name in names]


def _named(graph: ComputationalGraph) -> list[str]:
    """The weights of all layers that make channels which can be removed."""
    nodes = [node for node in graph.layers.values() if (node.filter_units >= 0).any()]
    return [node.parameters[0] for node in nodes]


def times_gradient(
    network: nn.Module, names: Sequence[str], images: Tensor, labels: Targets, task: Task
) -> dict[str, Tensor]:
    """Each of the weights named times the gradient of the loss with respect to it, by name."""
    weights = [attribute(network, name) for name in names]
    with torch.enable_grad(), _as_trained(network):
        loss, _ = task.training_loss(network, images, labels)
        gradients = torch.autograd.grad(loss, weights)
    return _products(names, weights, gradients)


def _products(
    names: Sequence[str], weights: Sequence[Tensor], others: Sequence[Tensor]
) -> dict[str, Tensor]:
    pairs = zip(names, weights, others, strict=True)
    return {name: (weight * other).detach() for name, weight, other in pairs}


def _as_trained(network: nn.Module) -> AbstractContextManager[None]:
    """Batch norm as in training, dropout off, running statistics unchanged."""
    return batch_statistics(network.eval())


def _sum(graph: ComputationalGraph, by_name: Mapping[str, Tensor]) -> Importance:
    """Scores of single weights, summed over filters and over the layers of a group."""
    return over_layers(graph, lambda node: _row_sums(by_name, node), dtype=torch.float64)


def _row_sums(by_name: Mapping[str, Tensor], node: Node) -> Tensor:
    return rows(by_name[node.parameters[0]], node).double().sum(1)


def _mean(graph: ComputationalGraph, per_filter: Callable[[Node], Tensor]) -> Importance:
    """The mean over all filters that are removed with a unit."""
    return over_layers(graph, per_filter, mean=True, dtype=torch.float64)
