"""How long networks take for a batch of images, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from gnnrl.shapes import Shape

K = TypeVar("K", bound=Hashable)


def median_latency(
    networks: Mapping[str, nn.Module],
    input_shape: Shape,
    batch_size: int,
    rounds: int,
    device: torch.device,
) -> dict[str, float]:
    """Return the median milliseconds each network takes for one batch of images of zeros.

    One round in ten, at least three, goes before the clock is read.
    """
    images = torch.zeros(batch_size, *input_shape, device=device)
    ready = {name: network.to(device).eval() for name, network in networks.items()}
    runs = {name: partial(network, images) for name, network in ready.items()}
    taken = median_milliseconds(runs, rounds, max(3, rounds // 10), device)
    return {name: round(milliseconds, 4) for name, milliseconds in taken.items()}


@torch.inference_mode()
def median_milliseconds(
    runs: Mapping[K, Callable[[], object]], rounds: int, warmup: int, device: torch.device
) -> dict[K, float]:
    """Return the median milliseconds of `rounds` calls of each function, after `warmup` more.

    The functions take turns, so that what else the machine does falls on all of them alike.
    """
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: expected at least 1")
    taken: dict[K, list[float]] = {key: [] for key in runs}
    for turn in range(warmup + rounds):
        for key, run in runs.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if turn >= warmup:
                taken[key].append(1000 * (time.perf_counter() - start))
    return {key: statistics.median(values) for key, values in taken.items()}


def _wait(device: torch.device) -> None:
    """Let queued work end: a GPU answers before it has computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
