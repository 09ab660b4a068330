"""Attention as people write it, each in a block between a patch embedding and a head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS = 24, 4
EACH = WIDTH // HEADS


class Attention(nn.Module):
    """`how`: the way it is written.  From `[N, tokens, WIDTH]` to the same."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        if how.startswith("module"):
            self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first="first" not in how)
        elif how.startswith("separate") or how in ("einsum", "rotary", "bmm"):
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        elif how.startswith("grouped"):
            self.q, self.k, self.v = (nn.Linear(WIDTH, n * EACH) for n in (HEADS, 2, 2))
        elif how == "raw":
            self.w = nn.Parameter(torch.zeros(3 * WIDTH, WIDTH))
        else:
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=how != "unbind")
        self.q_norm, self.k_norm = nn.LayerNorm(EACH), nn.RMSNorm(EACH)
        self.table = nn.Parameter(torch.zeros(31, HEADS))
        self.register_buffer("places", torch.arange(16)[:, None] - torch.arange(16) + 15)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.how.startswith("module"):
            return self._module(x)
        b, n, c = x.shape
        q, k, v = self._heads(x)
        if self.how == "sdpa" or self.how.startswith("grouped"):
            gqa = self.how == "grouped_sdpa"
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=gqa)
        elif self.how == "einsum":
            y = torch.einsum("b h i d, b h j d -> b h i j", q, k) / EACH**0.5
            y = torch.einsum("bhij,bhjd->bhid", y.softmax(-1), v)
        elif self.how == "bias":
            bias = self.table[self.places.view(-1)].view(16, 16, -1).permute(2, 0, 1)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.contiguous()[None])
        elif self.how == "bias_added":
            bias = (self.table[self.places] * 2).permute(2, 0, 1).unsqueeze(0)
            y = ((q * EACH**-0.5) @ k.mT + torch.sigmoid(bias)).softmax(-1) @ v
        elif self.how == "bmm":
            scores = torch.bmm(q, k.transpose(1, 2)) * EACH**-0.5
            return self.out(torch.bmm(scores.softmax(-1), v).view(b, HEADS, n, EACH)
                            .transpose(1, 2).reshape(b, n, c))  # fmt: skip
        else:
            scores = torch.matmul(q, k.transpose(-2, -1)) * q.shape[-1] ** -0.5
            y = F.dropout(scores.softmax(dim=-1), 0.1, self.training) @ v
        return self.out(y.transpose(1, 2).reshape(b, n, -1 if "grouped" in self.how else c))

    def _module(self, x: Tensor) -> Tensor:
        if self.how == "module":
            return self.inner(x, x, x, need_weights=False)[0]
        if self.how == "module_masked":
            hidden = torch.ones(16, 16, dtype=torch.bool, device=x.device).triu(1)
            return self.inner(x, x, x, attn_mask=hidden, need_weights=False)[0]
        x = x.transpose(0, 1) if "first" in self.how else x
        y, weights = self.inner(x, x, x)
        return y.transpose(0, 1) if "first" in self.how else y * weights.mean()

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n, c = x.shape
        if self.how == "raw":
            return F.linear(x, self.w).view(b, n, 3, HEADS, EACH).permute(2, 0, 3, 1, 4).unbind(0)
        if self.how == "heads_first":
            return self.qkv(x).view(b, n, HEADS, 3, EACH).permute(3, 0, 2, 1, 4).unbind(0)
        if self.how in ("chunk", "split"):
            made = self.qkv(x)
            parts = made.chunk(3, -1) if self.how == "chunk" else made.split(WIDTH, dim=2)
            return tuple(y.view(b, n, HEADS, -1).transpose(1, 2) for y in parts)
        if hasattr(self, "qkv"):
            made = self.qkv(x).reshape(b, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
            q, k, v = made.unbind(0) if self.how == "unbind" else (made[0], made[1], made[2])
            return (self.q_norm(q), self.k_norm(k), v) if self.how == "normed" else (q, k, v)
        if self.how == "bmm":
            parts = (layer(x).view(b, n, HEADS, EACH) for layer in (self.q, self.k, self.v))
            return tuple(y.transpose(1, 2).reshape(-1, n, EACH) for y in parts)
        size = (*x.shape[:-1], -1, EACH)
        if self.how == "separate_sizes":
            size = x.shape[:-1] + torch.Size((HEADS, EACH))
        q, k, v = (layer(x).view(size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.how == "rotary":
            return _turned(q), _turned(k), v
        if self.how == "grouped":
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        elif self.how == "grouped_expand":
            k, v = (y[:, :, None].expand(b, 2, 2, n, EACH).reshape(b, 4, n, EACH) for y in (k, v))
        return q, k, v


def _turned(x: Tensor) -> Tensor:
    """Rotary position embedding."""
    angle = torch.arange(x.shape[2], device=x.device)[:, None] / torch.ones(EACH, device=x.device)
    a, b = x[..., : EACH // 2], x[..., EACH // 2 :]
    return x * angle.cos() + torch.cat((-b, a), dim=-1) * angle.sin()


class Transformer(nn.Module):
    """Patches, a class token, positions, one block of attention and one of an MLP, a head."""

    def __init__(self, how: str, token: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH)) if token else None
        self.positions = nn.Parameter(torch.zeros(1, 16 + token, WIDTH))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.attention = Attention(how)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0] if self.token is not None else x.mean(1))


class Tokens(nn.Module):
    """PyTorch's own encoder on embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens)).mean(1))


GROUPS: Mapping[str, tuple[int, ...]] = {
    "module": (4,), "module_weights": (), "module_first": (4,), "module_masked": (4,),
    "separate": (4,), "separate_sizes": (4,), "einsum": (4,), "bmm": (6, 6), "rotary": (4,),
    "grouped": (2,), "grouped_expand": (2,), "grouped_sdpa": (2,), "raw": (4,),
    "heads_first": (4,), "chunk": (4,), "split": (4,), "unbind": (4,), "index": (4,),
    "sdpa": (4,), "normed": (4,), "bias": (4,), "bias_added": (4,),
}  # fmt: skip
"""The sizes of the channel groups that attention has, by the way it is written: heads, but where
they lie in the axis of the images their widths; none where the weights of all are averaged."""
