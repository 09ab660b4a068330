"""How a network is read."""

from __future__ import annotations

from gnnrl.settings import Settings


class ExtractSettings(Settings):
    """What of the network may not be pruned."""

    protect: tuple[str, ...] = ()
    """Layers, or parts of the network, that keep all their channels."""
