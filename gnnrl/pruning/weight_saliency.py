"""Criteria for single weights: one score for each weight of each layer, higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.criteria import OF_SINGLE_WEIGHTS
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.saliency import Examples, Scored, as_trained, local, normalised
from gnnrl.tasks.base import Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.tracing.fx_utils import attribute

Weights = Mapping[str, Tensor]


def masked_layers(graph: ComputationalGraph) -> dict[str, str]:
    """Return the layers whose single weights can be removed, and the names of their weights.

    Layers that are protected, and those that share their weights with another layer, are left out.
    """
    whole = graph.tied_layers.union(graph.protected)
    return {name: n.parameters[0] for name, n in graph.layers.items() if name not in whole}


FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda score: score,
    "magnitude_normalised": normalised,
    "magnitude_local": local,
}
"""What magnitudes of a layer are ranked by."""


def score_weights(
    criterion: str,
    network: nn.Module,
    graph: ComputationalGraph,
    examples: Examples,
    initial: nn.Module | None = None,
    task: Task = CLASSIFICATION,
) -> Scored:
    """Score all weights, `[weights of the layer]` by layer; the arguments are `saliency.score`'s.

    magnitude_sign: zero where training changed the sign (the thesis's Deconst, after Zhou et al.
    2019).  snip: |w dL/dw| (Lee et al. 2019, Eq. 5).
    Raises `UserError` for a criterion that ranks no single weights.
    """
    names = masked_layers(graph)
    now = {layer: _flat(network, name) for layer, name in names.items()}
    if criterion in FORMS:
        return _scored({layer: FORMS[criterion](w.abs()) for layer, w in now.items()})
    if criterion == "magnitude_sign":
        if initial is None:
            raise UserError(
                "magnitude_sign compares weights with those they started from: give the initial "
                "network"
            )
        before = {layer: _flat(initial, name) for layer, name in names.items()}
        same = {layer: w.sign() == before[layer].sign() for layer, w in now.items()}
        return _scored({layer: torch.where(same[layer], w.abs(), 0.0) for layer, w in now.items()})
    if criterion == "snip":
        images, labels = examples()
        weights = [attribute(network, name) for name in names.values()]
        with torch.enable_grad(), as_trained(network):
            loss, _ = task.training_loss(network, images, labels)
            slopes = torch.autograd.grad(loss, weights)
        found = zip(names, weights, slopes, strict=True)
        products = {layer: (w * g).detach().abs().flatten().cpu() for layer, w, g in found}
        return _scored(products, 3 * len(images))
    if criterion == "random":
        drawn = torch.Generator().manual_seed(0)
        return _scored({layer: torch.rand(len(w), generator=drawn) for layer, w in now.items()})
    raise UserError(
        f"the importance {criterion} scores channels, but single weights are ranked: set "
        f"search.importance to one of {', '.join(OF_SINGLE_WEIGHTS)}"
    )


def _flat(network: nn.Module, name: str) -> Tensor:
    return attribute(network, name).detach().float().cpu().flatten()


def _scored(scores: Weights, forward_images: int = 0) -> Scored:
    return Scored(Importance(dict(scores)), forward_images)
