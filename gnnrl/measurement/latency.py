"""How long networks take for a batch of images, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn


@torch.inference_mode()
def median_latency(
    networks: Mapping[str, nn.Module],
    input_shape: tuple[int, int, int],
    batch_size: int,
    rounds: int,
    device: torch.device,
) -> dict[str, float]:
    """Return the median milliseconds each network takes for one batch.

    The networks take turns, so that what else the machine does falls on all of them alike. One
    round in ten, at least three, goes before the clock is read.
    """
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: expected at least 1")
    images = torch.zeros(batch_size, *input_shape, device=device)
    ready = {name: network.to(device).eval() for name, network in networks.items()}
    taken: dict[str, list[float]] = {name: [] for name in ready}
    warm = max(3, rounds // 10)
    for turn in range(warm + rounds):
        for name, network in ready.items():
            milliseconds = _time(network, images)
            if turn >= warm:
                taken[name].append(milliseconds)
    return {name: round(statistics.median(values), 4) for name, values in taken.items()}


def _time(network: nn.Module, images: torch.Tensor) -> float:
    _wait(images.device)
    start = time.perf_counter()
    network(images)
    _wait(images.device)
    return 1000 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    """Let queued work end: a GPU answers before it has computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
