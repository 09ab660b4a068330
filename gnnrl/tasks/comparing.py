"""How the outputs of two networks are compared."""

# B: images   K: classes, or channels of an output

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def kl(
    student: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """T^2 times the divergence of softened outputs (Hinton et al. 2015); logits [B, K]."""
    log_student, log_teacher = (F.log_softmax(x / temperature, dim=1) for x in (student, teacher))
    return temperature**2 * _divergence(log_student, log_teacher, weights)


def mse(
    student: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Mean squared difference of softened outputs, as the SageMaker example has it."""
    ours, theirs = ((logits / temperature).softmax(1) for logits in (student, teacher))
    if weights is None:
        return F.mse_loss(ours, theirs)
    return weighted_mean((ours - theirs).square().mean(1), weights)


def _divergence(log_p: Tensor, log_q: Tensor, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of p from q, mean over rows of log-probabilities `[N, K]`."""
    if weights is None:
        return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
    return weighted_mean(F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(1), weights)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of values by weights of the same shape, 0 or more."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-12)


NUMBERS = 2**22
"""Of outputs that are compared at a time."""

KINDS: Mapping[str, Callable[..., Tensor]] = {"kl": kl, "mse": mse}
"""Distances of logits `[B, K]` from a teacher's at a temperature, for distillation; weights `[B]`:
of the rows, which count alike without."""


def jensen_shannon(log_p: Tensor, log_q: Tensor, weights: Tensor | None = None) -> float:
    """Mean Jensen-Shannon divergence of log-probabilities `[N, K]`, in [0, ln 2] (Lin 1991).

    Bounded: an image on which a subnet is confidently wrong counts once, not without limit.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    both = [_divergence(log_m, x, weights) for x in (log_p, log_q)]
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


def divergences(logits: Tensor, dense: Tensor, weights: Tensor | None = None) -> dict[str, float]:
    """Return all that rewards know of the difference of logits `[B, K]` from the dense ones.

    weights `[B]`: of the rows in the divergences; None: all count alike.
    """
    logits, dense = logits.double(), dense.double()
    log_p, log_dense = F.log_softmax(logits, 1), F.log_softmax(dense, 1)
    return {
        "divergence": float(_divergence(log_p, log_dense, weights)),
        "jensen_shannon": jensen_shannon(log_p, log_dense, weights),
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
