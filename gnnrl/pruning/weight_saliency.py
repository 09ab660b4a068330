"""Criteria for single weights: one score for each weight of each layer, higher = keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.saliency import Examples, Scored
from gnnrl.tasks.base import Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.tracing.fx_utils import attribute

Weights = Mapping[str, Tensor]


def masked_layers(graph: ComputationalGraph) -> dict[str, str]:
    """Return the layers whose single weights can be removed, and the names of their weights."""
    layers = graph.layers.items()
    return {name: n.parameters[0] for name, n in layers if name not in graph.protected}


def normalised(score: Tensor) -> Tensor:
    """Scores over their mean, so that layers can be compared."""
    return score / score.mean().clamp(min=1e-12)


def local(score: Tensor) -> Tensor:
    """Share of the layer's weights that are smaller: every layer keeps the same fraction."""
    return score.argsort(stable=True).argsort().double() / len(score)


FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda score: score,
    "magnitude_normalised": normalised,
    "magnitude_local": local,
}
"""What magnitudes of a layer are ranked by."""

CRITERIA = (*FORMS, "magnitude_sign", "snip", "random")


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
        with torch.enable_grad():
            loss, _ = task.training_loss(network.eval(), images, labels)
            slopes = torch.autograd.grad(loss, weights)
        found = zip(names, weights, slopes, strict=True)
        products = {layer: (w * g).detach().abs().flatten().cpu() for layer, w, g in found}
        return _scored(products, 3 * len(images))
    if criterion == "random":
        drawn = torch.Generator().manual_seed(0)
        return _scored({layer: torch.rand(len(w), generator=drawn) for layer, w in now.items()})
    raise UserError(
        f"the importance {criterion} scores channels, but single weights are ranked: set "
        f"search.importance to one of {', '.join(CRITERIA)}"
    )


def _flat(network: nn.Module, name: str) -> Tensor:
    return attribute(network, name).detach().float().cpu().flatten()


def _scored(scores: Weights, forward_images: int = 0) -> Scored:
    return Scored(Importance(dict(scores)), forward_images)
