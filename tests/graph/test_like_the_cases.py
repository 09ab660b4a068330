"""Small networks after what people have met: each is cut exactly, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from tests.cutting import assert_cut_is_exact, assert_trains, randomise

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A stem, something of one's own, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 1, 1)
        self.neck, self.head = nn.Conv2d(12, 12, 1), nn.Linear(12, 5)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Any:
        x = self.neck(self.middle(F.relu(self.stem(x))))
        return self.head(F.relu(x).mean((2, 3)))


class SquareTokens(Block):
    """Tokens back to an image, whose side is the root of their number."""

    def middle(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        side = int(tokens.shape[1] ** 0.5)
        return self.inner(tokens.transpose(1, 2).reshape(x.shape[0], -1, side, side))


class Calibrated(Block):
    """Channels that are weighed by the norms of their images (GRN)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 12, 1, 1)) for _ in range(2))

    def middle(self, x: Tensor) -> Tensor:
        length = x.norm(p=2, dim=(2, 3), keepdim=True)
        length = length / (length.mean(dim=1, keepdim=True) + 1e-6)
        return x + torch.addcmul(self.beta, self.gamma, x * length)


class WeightNormed(Block):
    """A convolution of which direction and length are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.utils.parametrizations.weight_norm(self.inner)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x))


class Turned(Block):
    """An image that is turned by learned numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.zeros(1, 2, 3))

    def middle(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.turn.expand(x.shape[0], -1, -1), x.shape, align_corners=False)
        return self.inner(F.grid_sample(x, grid, align_corners=False))


class Weighed(Block):
    """Two branches by learned weights that are made positive and sum to one."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))

    def middle(self, x: Tensor) -> Tensor:
        w = F.relu(self.weights)
        w = w / (w.sum() + 1e-4)
        return w[0] * x + w[1] * self.inner(x)


@dataclass
class Levels:
    fine: Tensor
    coarse: Tensor


class SharedHead(Block):
    """One head on two levels, in an object."""

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        y = F.relu(self.neck(self.inner(F.max_pool2d(x, 2))))
        x = x + F.interpolate(y, size=x.shape[-2:], mode="nearest")
        return Levels(*(self.head(level.permute(0, 2, 3, 1)) for level in (x, y)))


class Coordinates(Block):
    """The place of each pixel as two more channels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(14, 12, 3, 1, 1)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h, device=x.device).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w, device=x.device).view(1, 1, 1, w).expand(n, 1, h, w)
        return self.inner(torch.cat([x, rows.to(x), columns.type_as(x)], 1))


class CachesIndices(Block):
    """An index that the first pass makes and keeps, and the next ones use again."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = None

    def middle(self, x: Tensor) -> Tensor:
        if self.kept is None or self.kept.shape[0] != x.shape[2]:
            self.kept = torch.arange(x.shape[2], device=x.device).float()
        return self.inner(x * torch.cos(self.kept).view(1, 1, -1, 1).to(x.dtype))


class Windows(Block):
    """Attention with a mask in windows that stand in the batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.register_buffer(
            "mask",
            torch.zeros(4, 1, 16, 16).masked_fill_(
                torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.3, -100.0
            ),
        )

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 3, 5, 1)
        y = y.reshape(-1, h * w // 4, c)
        q, k, v = self.qkv(y).view(-1, h * w // 4, 3, 3, c // 3).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (c // 3) ** -0.5
        scores = (scores.view(n, 4, 3, h * w // 4, -1) + self.mask.unsqueeze(0)).flatten(0, 1)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, 2, 2, h // 2, w // 2, c)
        return y.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


class Frozen(Block):
    """A batch norm of one's own that never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(12)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.inner(x)))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.norm.eval()
        return self


class TwoModes(Block):
    """Another function of the channels in training."""

    def middle(self, x: Tensor) -> Tensor:
        return self.inner(x) if self.training else self.inner(x) * 0.5


class TooFew(Block):
    """As many channels as the batch has images."""

    def middle(self, x: Tensor) -> Tensor:
        return x[:, : len(x)].mean(1, keepdim=True) * self.inner(x)


EXACT: dict[type[nn.Module], set[str]] = {
    SquareTokens: set(), Calibrated: set(), WeightNormed: {"inner"}, Turned: set(),
    Weighed: set(), SharedHead: set(), Coordinates: set(), CachesIndices: set(), Windows: set(),
    Frozen: set(),
}  # fmt: skip
"""Networks that are cut, and what of them is left whole."""


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.__name__)
def test_what_can_be_cut_is_cut_exactly(kind: type[nn.Module]) -> None:
    cut = assert_cut_is_exact(randomise(kind()), IMAGE, 0.5, seed=0)
    assert set(cut.surgeon.graph.whole) == EXACT[kind] and cut.plan.kept
    assert_trains(cut.subnet, IMAGE)


@pytest.mark.parametrize("kind", [TwoModes, TooFew], ids=lambda kind: kind.__name__)
def test_what_would_be_another_network_is_refused(kind: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError, match="read as a graph") as caught:
        extract(randomise(kind()), IMAGE)
    assert "\n" not in str(caught.value)
