"""The settings of workers."""

from __future__ import annotations

from gnnrl.settings import Count, NotNegative, Positive, Settings


class RaySettings(Settings):
    """How many workers there are on Ray, what each of them is given, when it is given up."""

    workers: Count = 2
    """Processes, each with a copy of network, images and agent."""
    cpus: Positive = 1.0
    """Of each worker, as Ray counts them."""
    gpus: NotNegative = 0.0
    """Of each worker; fractions share a GPU."""
    timeout_s: Positive = 3600.0
    """Seconds that one evaluation may take."""
