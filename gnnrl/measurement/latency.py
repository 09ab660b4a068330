"""How long things take, measured side by side: the one timer of tables, evaluation, benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from gnnrl.measurement.running import ready, runs_on
from gnnrl.progress import progress
from gnnrl.runtime import device_of, keep_memory
from gnnrl.shapes import Shape

K = TypeVar("K", bound=Hashable)

SHORTEST = 3
"""Rounds before the clock is read, at least."""

WARM = 0.05
"""Seconds that a function runs before its turn."""

LONG = 0.1
"""Seconds that a function takes which need not: it fills the caches anyway."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every round, in the order of the rounds."""

    rounds: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """The median."""
        return float(np.median(self.rounds))

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return spread(self.rounds)

    def over(self, other: Timing) -> Timing:
        """Return the ratio of each round to the same round of another one."""
        return Timing(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range over the median."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float((high - low) / middle) if middle > 0 else 0.0


@torch.inference_mode()
def time_in_turns(
    runs: Mapping[K, Callable[[], object]],
    rounds: int,
    warmup: int,
    device: torch.device,
    label: str = "",
    warm: bool = True,
) -> dict[K, Timing]:
    """Time `rounds` calls of each function, after `warmup` more.

    The functions take turns, so that what else the machine does falls on all of them alike.  warm:
    each runs for a while before its turn, so that it finds the caches as it leaves them, not as the
    others do.  The process keeps freed memory from then on.  label: of a bar; empty: there is none.
    """
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: expected at least 1")
    keep_memory()
    taken: dict[K, list[float]] = {key: [] for key in runs}
    last = dict.fromkeys(runs, 0.0)
    with progress(label, warmup + rounds, visible=bool(label)) as bar:
        for turn in range(warmup + rounds):
            for key, run in runs.items():
                if warm and last[key] < LONG:
                    _warm_up(run, device)
                last[key] = _seconds(run, device)
                if turn >= warmup:
                    taken[key].append(1000 * last[key])
            bar.advance()
    return {key: Timing(tuple(values)) for key, values in taken.items()}


def time_networks(
    networks: Mapping[K, nn.Module],
    input_shape: Shape,
    batch_size: int,
    rounds: int,
    runtime: str = "torch",
    threads: int | None = None,
    label: str = "",
) -> dict[K, Timing]:
    """Time networks, one batch of random images each, in a runtime of `RUNTIMES`.

    One round in ten, at least three, goes before the clock is read.  threads: None: as many as
    PyTorch uses.  label: of a bar; empty: there is none.  Raises `UserError` where the runtime is
    not installed.
    """
    place = runs_on(runtime, device_of(next(iter(networks.values()))))
    images = torch.rand(
        batch_size, *input_shape, generator=torch.Generator().manual_seed(0)
    ).to(place)  # fmt: skip
    with pinned(threads) as count:
        runs = {name: ready(runtime, net, images, count) for name, net in networks.items()}
        return time_in_turns(runs, rounds, max(SHORTEST, rounds // 10), place, label)


@contextmanager
def pinned(threads: int | None) -> Iterator[int]:
    """Hold PyTorch to a number of threads (None: its own), and give that number."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _warm_up(run: Callable[[], object], device: torch.device) -> None:
    """Call a function for `WARM` seconds; once on a GPU, whose caches are full after one call."""
    left = WARM
    while left > 0:
        left = left - _seconds(run, device) if device.type == "cpu" else 0.0


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return what a call takes."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    """Let queued work end: a GPU answers before it has computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
