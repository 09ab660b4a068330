"""The one operation a cut network may have that the dense one had not."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelGather(nn.Module):
    """Picks channels: in place of a shuffle, a split, or a padding with channels of zeros, all of
    which name channels by position and so change when channels go.

    axis: that the channels lie on.  index `[length]`: the channel to pick; -1: zeros.
    """

    def __init__(self, axis: int, index: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("index", index.clamp(min=0), persistent=False)
        present = index >= 0
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        self.register_buffer(
            "present", None if bool(present.all()) else present, persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        picked = x.index_select(self.axis, self.index)
        if self.present is None:
            return picked
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return picked * self.present.view(shape).to(x.dtype)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, channels={len(self.index)}"
