"""The exported subnet in 8-bit integers: ONNX Runtime's static quantisation, as a last step."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl.data.images import Labelled
from gnnrl.measurement.latency import SHORTEST, pinned, time_in_turns
from gnnrl.measurement.running import session_of
from gnnrl.measurement.runtimes import runtime_of
from gnnrl.measurement.settings import EvaluateSettings
from gnnrl.tasks.base import Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.training.evaluate import evaluate

BATCH = 64
"""Calibration images that pass at once."""


def quantised(model: bytes, images: Labelled) -> bytes:
    """Return an ONNX network whose weights and activations are 8-bit integers.

    Weights are scaled channel by channel, activations by their range on the images, which should be
    the reward images: test images must not decide anything.
    """
    runtime_of("onnxruntime")
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preparation that exports have had
    try:
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            before.write_bytes(model)
            quantize_static(
                str(before), str(after), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
            return after.read_bytes()
    finally:
        logging.getLogger().setLevel(level)


def figures(
    models: dict[str, bytes],
    images: Labelled,
    settings: EvaluateSettings,
    task: Task = CLASSIFICATION,
) -> dict[str, Any]:
    """Return the metric on images, bytes and latency of ONNX networks in ONNX Runtime, by name."""
    found: dict[str, Any] = {}
    rounds = settings.latency_rounds
    with pinned(settings.latency_threads) as count:
        sessions = {name: session_of(model, count) for name, model in models.items()}
        for name, session in sessions.items():
            score = evaluate(_Network(session), images, BATCH, task)
            found[name] = {task.metric: score.value, "bytes": len(models[name])}
            found[name] |= {"metric": task.metric, "milliseconds": {}}
        pixels, _ = next(iter(images.batches(1, torch.device("cpu"))))
        for size in settings.latency_batches:
            given = {"images": np.zeros((size, *pixels.shape[1:]), np.float32)}
            runs = {name: _Run(session, given) for name, session in sessions.items()}
            cpu, warmup = torch.device("cpu"), max(SHORTEST, rounds // 10)
            for name, timing in time_in_turns(runs, rounds, warmup, cpu).items():
                found[name]["milliseconds"][str(size)] = {
                    "milliseconds": round(timing.milliseconds, 4),
                    "spread": round(timing.spread, 4),
                }
    return found


class _Run:
    def __init__(self, session: Any, given: dict[str, np.ndarray]) -> None:
        self.session, self.given = session, given

    def __call__(self) -> object:
        return self.session.run(None, self.given)


class _Network(nn.Module):
    """An ONNX Runtime session as a network, so that a task measures it as any other."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.name = session.get_inputs()[0].name

    def forward(self, x: Tensor) -> Any:
        found = [torch.from_numpy(y) for y in self.session.run(None, {self.name: x.numpy()})]
        return found[0] if len(found) == 1 else tuple(found)


def _batches(images: Labelled) -> Iterator[dict[str, np.ndarray]]:
    for x, _ in images.batches(BATCH, torch.device("cpu")):
        yield {"images": x.numpy()}
