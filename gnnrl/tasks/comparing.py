"""How the outputs of two networks are compared."""

# B: images   K: classes, or channels of an output

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the divergence of softened outputs (Hinton et al. 2015); logits [B, K]."""
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def mse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of softened outputs, as the SageMaker example has it."""
    return F.mse_loss((student / temperature).softmax(1), (teacher / temperature).softmax(1))


NUMBERS = 2**22
"""Of outputs that are compared at a time."""

KINDS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {"kl": kl, "mse": mse}
"""Distances of logits `[B, K]` from a teacher's, for distillation."""


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> float:
    """Mean Jensen-Shannon divergence of log-probabilities `[N, K]`, in [0, ln 2] (Lin 1991).

    Bounded: an image on which a subnet is confidently wrong counts once, not without limit.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    both = [F.kl_div(log_m, x, log_target=True, reduction="batchmean") for x in (log_p, log_q)]
    return float(both[0] + both[1]) / 2


def squared_error(outputs: Tensor, dense: Tensor) -> Tensor:
    """Return the squared distance of each image's output over the dense one's squared length.

    Outputs `[B, ...]` give `[B]`; an output of length 0 is compared with 1.
    """
    outputs, dense = outputs.flatten(1), dense.flatten(1)
    lengths = dense.square().sum(1)
    return (outputs - dense).square().sum(1) / torch.where(lengths > 0, lengths, 1.0)


def cosine(outputs: Tensor, dense: Tensor) -> Tensor:
    """Return the cosine of the angle between each image's outputs `[B, ...]`: `[B]`."""
    return F.cosine_similarity(outputs.flatten(1), dense.flatten(1), dim=1)


def divergences(logits: Tensor, dense: Tensor) -> dict[str, float]:
    """Return all that rewards know of the difference of logits `[B, K]` from the dense ones."""
    logits, dense = logits.double(), dense.double()
    log_p, log_dense = F.log_softmax(logits, 1), F.log_softmax(dense, 1)
    return {
        "divergence": float(F.kl_div(log_p, log_dense, log_target=True, reduction="batchmean")),
        "jensen_shannon": jensen_shannon(log_p, log_dense),
        **angles(logits, dense),
    }


def angles(outputs: Tensor, dense: Tensor) -> dict[str, float]:
    """Return normalised squared error and cosine, means over images; outputs `[B, ...]`."""
    return {
        "squared_error": float(squared_error(outputs, dense).mean()),
        "cosine": float(cosine(outputs, dense).mean()),
    }


def maps(outputs: Tensor, dense: Tensor) -> dict[str, float]:
    """Return the same for outputs `[B, K, ...]`: divergences pixel by pixel, angles image by image.

    A few images at a time: in float64, all of them would not fit into memory.
    """
    few = max(1, NUMBERS // max(1, outputs[0].numel()))
    parts = [
        (len(a), divergences(by_pixel(a), by_pixel(b)) | angles(a.double(), b.double()))
        for a, b in zip(outputs.split(few), dense.split(few), strict=True)
    ]
    names = parts[0][1]
    return {name: sum(n * found[name] for n, found in parts) / len(outputs) for name in names}


def by_pixel(outputs: Tensor) -> Tensor:
    """Return outputs `[B, K, ...]` as rows `[B * pixels, K]`; rows `[B, K]` as they are."""
    return outputs.movedim(1, -1).flatten(0, -2)
