"""How a network is read."""

from __future__ import annotations

from typing import Literal

from gnnrl.settings import Name, Settings


class ExtractSettings(Settings):
    """What of the network may be pruned."""

    protect: tuple[Name, ...] = ()
    """Layers, or parts of the network, that keep all their channels."""
    attention: Literal["heads", "width"] = "heads"
    """Prune whole heads of attention, or the width of the heads."""
    embedding: bool = False
    """Prune the width of transformers too, which their layer norms see."""
