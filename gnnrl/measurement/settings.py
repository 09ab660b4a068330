"""How the dense network and the subnet are compared."""

from __future__ import annotations

from typing import Annotated

from gnnrl.settings import Count, Positive, Settings, Switch, name_in


class EvaluateSettings(Settings):
    """How accuracy and latency are measured."""

    batch_size: Count = 256
    """Test images that pass the networks at once."""
    latency_runtimes: tuple[Annotated[str, name_in("gnnrl.measurement.runtimes:RUNTIMES")], ...] = (
        "torch",
    )
    """torch, torch_channels_last, torch_compile, onnxruntime: each is measured."""
    latency_batches: tuple[Count, ...] = (1, 64)
    """Images that pass the networks at once where latency is measured."""
    latency_rounds: Count = 30
    """Measurements, of which the median is taken."""
    latency_threads: Count | None = None
    """Threads while latency is measured; null: as many as PyTorch uses."""
    noisy_above: Positive = 0.1
    """A spread (interquartile range over median) above it is reported as noise."""
    int8: Switch = False
    """Quantise the exported subnet statically, calibrated on the reward images."""
