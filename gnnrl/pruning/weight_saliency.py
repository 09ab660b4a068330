"""Criteria for single weights: one score for each weight of each layer, higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.criteria import OF_SINGLE_WEIGHTS
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.saliency import (
    Examples,
    Scored,
    local,
    normalised,
    started,
    times_gradient,
    with_same_sign,
)
from gnnrl.registry import imported
from gnnrl.tasks.base import Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.tracing.fx_utils import attribute


def masked_layers(graph: ComputationalGraph) -> dict[str, str]:
    """Return the layers whose single weights can be removed, and the names of their weights.

    Layers that are protected, and those that share their weights with another layer, are left out.
    """
    whole = graph.tied_layers.union(graph.protected)
    return {name: n.parameters[0] for name, n in graph.layers.items() if name not in whole}


@dataclass(frozen=True)
class Weighed:
    """What a criterion of single weights is given: `score_weights`'s arguments.

    names: of the weights, by layer.
    """

    network: nn.Module
    names: Mapping[str, str]
    examples: Examples
    initial: nn.Module | None
    task: Task

    def flat(self, network: nn.Module | None = None) -> dict[str, Tensor]:
        """Return the weights by layer, as one row each; of another network where one is given."""
        read = network or self.network
        return {
            layer: attribute(read, name).detach().float().cpu().flatten()
            for layer, name in self.names.items()
        }


def score_weights(
    criterion: str,
    network: nn.Module,
    graph: ComputationalGraph,
    examples: Examples,
    initial: nn.Module | None = None,
    task: Task = CLASSIFICATION,
) -> Scored:
    """Score all weights, `[weights of the layer]` by layer; the arguments are `saliency.score`'s.

    criterion: a member of OF_SINGLE_WEIGHTS; raises `UserError` for another one.
    """
    if criterion not in OF_SINGLE_WEIGHTS:
        raise UserError(
            f"the importance {criterion} scores channels, but single weights are ranked: set "
            f"search.importance to one of {', '.join(OF_SINGLE_WEIGHTS)}"
        )
    scored = imported(OF_SINGLE_WEIGHTS[criterion], "importance")
    return scored(Weighed(network, masked_layers(graph), examples, initial, task))


def magnitude(given: Weighed) -> Scored:
    """Absolute weight, not normalised by its layer."""
    return _of_sizes(given, lambda size: size)


def magnitude_normalised(given: Weighed) -> Scored:
    """Absolute weight over the mean of its layer."""
    return _of_sizes(given, normalised)


def magnitude_local(given: Weighed) -> Scored:
    """Share of the weights of its layer that are smaller."""
    return _of_sizes(given, local)


def magnitude_sign(given: Weighed) -> Scored:
    """Absolute weight, zero where training changed the sign.

    The thesis's Deconst, after Zhou et al. 2019.
    """
    before = given.flat(started("magnitude_sign", given.initial))
    return _scored({name: with_same_sign(w, before[name]) for name, w in given.flat().items()})


def snip(given: Weighed) -> Scored:
    """Sensitivity of the loss to a weight's presence, |w dL/dw| (Lee et al. 2019, Eq. 5)."""
    images, labels = given.examples()
    names = list(given.names.values())
    products = times_gradient(given.network, names, images, labels, given.task)
    scores = {layer: products[name].abs().flatten().cpu() for layer, name in given.names.items()}
    return _scored(scores, 3 * len(images))


def random(given: Weighed) -> Scored:
    """Scores drawn uniformly: the control that every criterion has to beat."""
    drawn = torch.Generator().manual_seed(0)
    return _scored({n: torch.rand(len(w), generator=drawn) for n, w in given.flat().items()})


def _of_sizes(given: Weighed, form: Callable[[Tensor], Tensor]) -> Scored:
    return _scored({layer: form(w.abs()) for layer, w in given.flat().items()})


def _scored(scores: Mapping[str, Tensor], forward_images: int = 0) -> Scored:
    return Scored(Importance(dict(scores)), forward_images)
