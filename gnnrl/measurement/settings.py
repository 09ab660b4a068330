"""How the dense network and the subnet are compared."""

from __future__ import annotations

from gnnrl.settings import Count, Settings


class EvaluateSettings(Settings):
    """How accuracy and latency are measured."""

    batch_size: Count = 256
    """Test images that pass the networks at once."""
    latency_batches: tuple[Count, ...] = (1, 64)
    """Images that pass the networks at once where latency is measured."""
    latency_rounds: Count = 30
    """Measurements, of which the median is taken."""
