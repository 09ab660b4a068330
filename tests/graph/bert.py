"""An encoder of words as transformers writes it: several inputs, outputs in a dictionary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, WORDS = 24, 4, 7


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(30, WIDTH), nn.Embedding(2, WIDTH)
        self.places, self.norm = nn.Embedding(12, WIDTH), nn.LayerNorm(WIDTH)
        self.register_buffer("numbers", torch.arange(12)[None])

    def forward(self, words: Tensor, kinds: Tensor | None) -> Tensor:
        if kinds is None:
            kinds = torch.zeros_like(words)
        places = self.numbers[:, : words.shape[1]].to(words.device)
        return self.norm(self.words(words) + self.kinds(kinds) + self.places(places))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.attended, self.wide, self.narrow = (
            nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH),
        )  # fmt: skip
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor]:
        size = (*x.shape[:-1], -1, WIDTH // HEADS)
        q, k, v = (f(x).view(size).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        x = self.norm1(self.attended(y.reshape(*x.shape[:-1], -1).contiguous()) + x)
        return (self.norm2(self.narrow(F.gelu(self.wide(x))) + x),)


class Bert(nn.Module):
    """`how`: the form of the mask, `added` to the scores or of `truth` values."""

    def __init__(self, how: str = "added") -> None:
        super().__init__()
        self.how, self.embeddings = how, Embeddings()
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.pooler = nn.Linear(WIDTH, WIDTH)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        x = self.embeddings(input_ids, token_type_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.how == "truth":
            there = mask[:, None, None, :].to(device=x.device, dtype=torch.bool)
            mask = there & torch.ones(1, 1, x.shape[1], 1, dtype=torch.bool, device=x.device)
        else:
            mask = (1.0 - mask[:, None, None, :].to(dtype=x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)[0]
        return {"hidden": x, "pooled": torch.tanh(self.pooler(x[:, 0]))}


def words(sentences: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 30, (sentences, WORDS), generator=generator)
    mask = torch.ones(sentences, WORDS, dtype=torch.long)
    mask[0, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (ids > 15).long()}
