"""A small network around code of one's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract

IMAGE = torch.zeros(2, 3, 8, 8)


class Made(nn.Module):
    """conv1 (3 → 8), then `middle`, then a head of four classes."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.middle, self.head = middle, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, self.conv1(x)).mean((2, 3)))


def refusal(network: nn.Module, image: Tensor = IMAGE, protect: tuple[str, ...] = ()) -> str:
    """The one sentence with which a network is refused."""
    with pytest.raises(UserError) as caught:
        extract(network, image, protect)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400
    return text
