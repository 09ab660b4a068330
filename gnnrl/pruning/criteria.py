"""Importances by name: where each is, what it needs, what it costs."""

from __future__ import annotations

from collections.abc import Mapping

from gnnrl.settings import Count, Positive, Settings

CRITERIA: Mapping[str, str] = {
    "l1": "gnnrl.pruning.importance:l1",
    "l2": "gnnrl.pruning.importance:l2",
    "l1_normalised": "gnnrl.pruning.importance:l1_normalised",
    "batch_norm": "gnnrl.pruning.importance:batch_norm",
    "fpgm": "gnnrl.pruning.importance:fpgm",
    "random": "gnnrl.pruning.importance:random",
    "orthogonality": "gnnrl.pruning.importance:orthogonality",
}
"""Criteria of the weights that cost nothing."""

ROUNDS = 100
"""Of SynFlow (Tanaka et al. 2020, section 6)."""

ON_WEIGHTS: Mapping[str, tuple[str, int]] = {
    "magnitude": ("gnnrl.pruning.saliency:magnitude", 0),
    "magnitude_normalised": ("gnnrl.pruning.saliency:magnitude_normalised", 0),
    "magnitude_local": ("gnnrl.pruning.saliency:magnitude_local", 0),
    "synflow": ("gnnrl.pruning.saliency:synflow", 3 * ROUNDS),
}
"""Criteria that are ranked over the whole network and need the weights alone, with the forward
images that they cost."""

FROM_INITIAL: Mapping[str, str] = {"magnitude_sign": "gnnrl.pruning.saliency:magnitude_sign"}
"""Criteria that need the network as it was before training."""

ON_EXAMPLES: Mapping[str, tuple[str, int]] = {
    "snip": ("gnnrl.pruning.saliency:snip", 3),
    "taylor": ("gnnrl.pruning.saliency:taylor", 3),
    "grasp": ("gnnrl.pruning.saliency:grasp", 9),
}
"""Criteria that need labelled images, with the forward images that each of these costs."""

SALIENCIES = (*ON_WEIGHTS, *FROM_INITIAL, *ON_EXAMPLES)

OF_SINGLE_WEIGHTS: Mapping[str, str] = {
    "magnitude": "gnnrl.pruning.weight_saliency:magnitude",
    "magnitude_normalised": "gnnrl.pruning.weight_saliency:magnitude_normalised",
    "magnitude_local": "gnnrl.pruning.weight_saliency:magnitude_local",
    "magnitude_sign": "gnnrl.pruning.weight_saliency:magnitude_sign",
    "snip": "gnnrl.pruning.weight_saliency:snip",
    "random": "gnnrl.pruning.weight_saliency:random",
}
"""Criteria that rank single weights, too."""


class BottleneckSettings(Settings):
    """How long the gates are trained, for the importance and the prior `bottleneck`."""

    batches: Count = 100
    """Steps of training; 100 batches of 64 cost 40 evaluations."""
    batch_size: Count = 64
    """Images of a batch."""
    learning_rate: Positive = 0.2
    """Of the gates' logits, by Adam."""
