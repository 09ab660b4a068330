"""Which network is pruned."""

from __future__ import annotations

from gnnrl.settings import Count, Settings


class NetworkSettings(Settings):
    """The network that is pruned, and the shape of its images."""

    name: str = "resnet20"
    """A built-in name, torchvision/NAME or package.module:function."""
    input_shape: tuple[Count, Count, Count] = (3, 32, 32)
    """Channels, height, width."""
