"""Batch-norm statistics of a cut network, measured anew on a few images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running means and variances by those of `batches` of images `[N, C, H, W]`.

    Every batch weighs the same.  Nothing else changes: no weight, no mode, no dropout.
    (EagleEye, Li et al. 2020, section 3.3, calls it adaptive batch normalization.)
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    modes = [(m, m.training) for m in network.modules()]
    momenta = [m.momentum for m in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training


@contextlib.contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Within: batch norm uses the statistics of what passes, and remembers none of it."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and not m.training]
    tracking = [m.track_running_stats for m in norms]
    kept = [(m.running_mean, m.running_var) for m in norms]
    for norm in norms:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    try:
        yield
    finally:
        for norm, track, (mean, var) in zip(norms, tracking, kept, strict=True):
            norm.track_running_stats, norm.running_mean, norm.running_var = track, mean, var
