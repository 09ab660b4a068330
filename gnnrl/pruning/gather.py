"""The one operation a cut network may have that the dense one had not."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelGather(nn.Module):
    """Picks channels: in place of a shuffle, a split, or a padding with channels of zeros, all of
    which name channels by position and so change when channels are removed.

    axis: that the channels lie on, of `dims`.  index `[length]`: the channel to pick; -1: zeros.
    It is made of ordinary operations, so that a cut network can be read and cut again.
    """

    index: Tensor

    def __init__(self, axis: int, dims: int, index: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.length = len(index)
        absent = index < 0
        self.zeros = bool(absent.any())
        self.padding = (0, 0) * (dims - axis - 1) + (1, 0)  # one channel of zeros in front
        index = index + 1 if self.zeros else index
        self.start = int(index[0])
        self.contiguous = bool((index.diff() == 1).all())
        self.register_buffer("index", None if self.contiguous else index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.zeros:
            x = F.pad(x, self.padding)
        if self.contiguous:
            return x.narrow(self.axis, self.start, self.length)
        return x.index_select(self.axis, self.index)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, channels={self.length}"
