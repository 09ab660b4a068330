"""How a plan is applied to a network."""

from __future__ import annotations

from typing import Literal

from gnnrl.settings import Count, CountOrNone, Settings, Weights


class PruneSettings(Settings):
    """Which weights are pruned, and what is repaired afterwards."""

    weights: Weights = "final"
    """Weights that are pruned: initial, final or the epoch of a snapshot."""
    recalibration_images: CountOrNone = 512
    """Training images for new batch-norm statistics; 0: keep the old ones."""
    compensation: Literal["none", "mean_shift", "gram", "sequential"] = "none"
    """mean_shift, gram: by moments of inputs; sequential: refit layer by layer."""
    calibration_images: Count = 1024
    """Training images, without labels, for the compensation."""
