"""Which network is pruned."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gnnrl.errors import UserError
from gnnrl.registry import is_own
from gnnrl.settings import Count, Name, Settings

Size = Annotated[Count, Field(le=8192)]


class NetworkSettings(Settings):
    """The network that is pruned, and the shape of its images."""

    name: Name = "resnet20"
    """A built-in name, torchvision/NAME or package.module:function."""
    input_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """Channels, height, width."""
    num_classes: Count | None = None
    """What the network tells apart; null: as many classes as the data set has."""

    def classes(self, known: int) -> int:
        """Return for how many classes the network is built, where the data set has so many."""
        if self.num_classes is None and not known and not is_own(self.name):
            raise UserError(
                "the data set has no classes: set network.num_classes to the number of classes, "
                "or of output channels, of the network"
            )
        if self.num_classes is not None and self.num_classes < known:
            raise UserError(
                f"network.num_classes is {self.num_classes}, but the data set has {known} classes: "
                "raise it, or set it to null"
            )
        return self.num_classes or max(known, 1)
