"""Steps of random networks that mix positions, change the size or split the channels for long."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.steps import SIDE, Step

ATTENTION = "module weights chunk unbind product einsum windows bias".split()


class Attending(Step):
    """Attention over the pixels, or over windows of them, beside the identity."""

    def __init__(self, c: int, heads: int, width: int, how: str, norm: bool) -> None:
        super().__init__(c, c)
        self.heads, self.width, self.how = heads, width, how
        inner = heads * width
        self.norm = nn.LayerNorm(c) if norm else nn.Identity()
        if how in ("module", "weights"):
            self.lift, self.lower = nn.Linear(c, inner), nn.Linear(inner, c)
            self.inner = nn.MultiheadAttention(inner, heads, batch_first=True)
        else:
            self.qkv, self.lower = nn.Linear(c, 3 * inner), nn.Linear(inner, c)
        self.table = nn.Parameter(torch.zeros(heads, SIDE * SIDE, 1)) if how == "bias" else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if self.how == "windows":
            tokens = x.view(-1, self.in_channels, 2, SIDE // 2, SIDE).permute(0, 2, 3, 4, 1)
            tokens = tokens.reshape(-1, SIDE * SIDE // 2, self.in_channels)
        y = self.lower(self._mixed(self.norm(tokens)))
        if self.how == "windows":
            y = y.reshape(-1, 2, SIDE // 2, SIDE, self.in_channels).permute(0, 4, 1, 2, 3)
        else:
            y = y.transpose(1, 2)
        return x + y.reshape(x.shape)

    def _mixed(self, x: Tensor) -> Tensor:
        if self.how in ("module", "weights"):
            x = self.lift(x)
            return self.inner(x, x, x, need_weights=self.how == "weights")[0]
        b, n, _ = x.shape
        if self.how == "chunk":
            q, k, v = (
                y.reshape(b, n, self.heads, self.width).transpose(1, 2)
                for y in self.qkv(x).chunk(3, dim=-1)
            )
        else:
            made = self.qkv(x).view(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
            q, k, v = made.unbind(0)
        if self.how == "product":
            y = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
        elif self.how == "einsum":
            y = torch.einsum("bhid,bhjd->bhij", q, k).mul(0.5).softmax(-1)
            y = torch.einsum("bhij,bhjd->bhid", y, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.table)
        return y.transpose(1, 2).reshape(b, n, -1)


class Upscaled(Step):
    """To twice the size by a transposed convolution, and back."""

    def __init__(self, c: int, out: int, groups: int) -> None:
        super().__init__(c, out)
        self.up = nn.ConvTranspose2d(c, c, 3, 2, 1, output_padding=1, groups=groups)
        self.down = nn.Conv2d(c, out, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.up(x)))


class CrossStage(Step):
    """Halves of one convolution, one of which goes on and on; all are joined (C2f)."""

    def __init__(self, c: int, half: int, out: int, split: bool) -> None:
        super().__init__(c, out)
        self.half, self.split = half, split
        self.first, self.last = nn.Conv2d(c, 2 * half, 1), nn.Conv2d(4 * half, out, 1)
        self.inner = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        parts = list(x.split((self.half, self.half), 1) if self.split else x.chunk(2, 1))
        parts.extend(parts[-1] + torch.tanh(layer(parts[-1])) for layer in self.inner)
        return self.last(torch.cat(parts, 1))
