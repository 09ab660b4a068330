"""Which network is pruned."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gnnrl.settings import Count, Name, Settings

Size = Annotated[Count, Field(le=8192)]


class NetworkSettings(Settings):
    """The network that is pruned, and the shape of its images."""

    name: Name = "resnet20"
    """A built-in name, torchvision/NAME or package.module:function."""
    input_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """Channels, height, width."""
