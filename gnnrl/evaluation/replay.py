"""A computation that is recorded once on a GPU and played again (a CUDA graph)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARMUPS = 2
"""Runs before the recording, in which libraries choose their kernels."""


class Replay:
    """Computes again what `compute` computes, without Python; on a processor it calls it.

    compute: reads and writes the same tensors each time, and does not wait for the device.
    """

    def __init__(self, compute: Callable[[], Tensor], place: torch.device) -> None:
        self._compute, self._place = compute, place
        self._graph: torch.cuda.CUDAGraph | None = None
        self._out: Tensor | None = None

    def __call__(self) -> Tensor:
        """Return the result, a new tensor."""
        if self._place.type != "cuda":
            return self._compute()
        if self._graph is None:
            self._record()
        assert self._graph is not None and self._out is not None
        self._graph.replay()
        return self._out.clone()

    def _record(self) -> None:
        stream, main = torch.cuda.Stream(self._place), torch.cuda.current_stream(self._place)
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            for _ in range(WARMUPS):
                self._compute()
        main.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = self._compute()


def arriving(values: Tensor, place: torch.device) -> Callable[[], Tensor]:
    """Send values to a device; return what waits for them, and for nothing that comes after."""
    if values.device.type == place.type:
        return lambda: values
    here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    here.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def wait() -> Tensor:
        event.synchronize()
        return here

    return wait
