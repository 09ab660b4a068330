"""Rewards by name, and what they may depend on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gnnrl.graph.cost import Cost


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a reward may depend on: the subnet on the reward images, and what it costs.

    accuracy, dense_accuracy: in [0, 1].  loss: mean cross-entropy.  divergence: mean
    Kullback-Leibler divergence from the dense network; jensen_shannon: that of Jensen and Shannon,
    in [0, ln 2].
    flops_kept, parameters_kept: fractions of the dense network's, (0, 1].
    """

    accuracy: float
    loss: float
    divergence: float
    jensen_shannon: float
    dense_accuracy: float
    flops_kept: float
    parameters_kept: float


def n2n(measured: Measured) -> float:
    """C (2 - C) A / A_teacher, C the fraction of parameters saved (Ashok et al. 2018, Eq. 5).

    As the paper, its code and the code of SageMaker's example have it.
    """
    saved = 1.0 - measured.parameters_kept
    return saved * (2.0 - saved) * relative_accuracy(measured)


def sagemaker(measured: Measured) -> float:
    """C A / ((2 - C) A_teacher), as SageMaker's example documents it."""
    saved = 1.0 - measured.parameters_kept
    return saved / (2.0 - saved) * relative_accuracy(measured)


def relative_accuracy(measured: Measured) -> float:
    """Accuracy over the teacher's, both on the reward images; 0 where neither is right at all."""
    return measured.accuracy / measured.dense_accuracy if measured.dense_accuracy else 0.0


REWARDS: dict[str, Callable[[Measured], float]] = {
    "accuracy": lambda m: m.accuracy,
    "loss": lambda m: -m.loss,
    "divergence": lambda m: -m.divergence,
    "jensen_shannon": lambda m: -m.jensen_shannon,
    "n2n": n2n,
    "n2n_constrained": n2n,  # `Students` see to the constraint
    "sagemaker": sagemaker,
}
"""By name, as are functions of the user's own; all higher = better."""


def measured(logits: Tensor, dense: Tensor, labels: Tensor, price: Cost, whole: Cost) -> Measured:
    """Compare a subnet's logits `[N, K]` and cost with labels `[N]` and the dense network's."""
    log_p, log_dense = F.log_softmax(logits.double(), 1), F.log_softmax(dense.double(), 1)
    return Measured(
        accuracy=_accuracy(logits, labels),
        loss=float(F.nll_loss(log_p, labels)),
        divergence=float(F.kl_div(log_p, log_dense, log_target=True, reduction="batchmean")),
        jensen_shannon=jensen_shannon(log_p, log_dense),
        dense_accuracy=_accuracy(dense, labels),
        flops_kept=price.flops / whole.flops,
        parameters_kept=price.parameters / whole.parameters,
    )


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> float:
    """Mean Jensen-Shannon divergence of log-probabilities `[N, K]`, in [0, ln 2] (Lin 1991).

    Bounded: an image on which a subnet is confidently wrong counts once, not without limit.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    both = [F.kl_div(log_m, x, log_target=True, reduction="batchmean") for x in (log_p, log_q)]
    return float(both[0] + both[1]) / 2


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())
