"""`nn.MultiheadAttention` written out as the operations it stands for.

The module itself ties the width of its heads to the width of what it reads, so that it cannot
lose a head; its parameters and the operations between them can.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What the module gives for its arguments.

    Raises `ValueError` for what is not written out: a bias for keys, keys of zeros, a batch axis
    that is missing, and keys or values other than the query where one weight makes all three.
    """
    if module.bias_k is not None or module.add_zero_attn:
        raise ValueError("attention with a bias for keys, or keys of zeros, is not written out")
    if query.dim() != 3:
        raise ValueError("attention over tensors without a batch axis is not written out")
    if not module.batch_first:
        same = query is key and key is value
        query = query.transpose(0, 1)
        key, value = (query, query) if same else (key.transpose(0, 1), value.transpose(0, 1))
    heads, width = module.num_heads, module.head_dim

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, width)).transpose(1, 2)

    q, k, v = (split(x) for x in _projected(module, query, key, value))
    mask = _mask(q, attn_mask, key_padding_mask, heads)
    if not need_weights:
        dropout = module.dropout if module.training else 0.0
        out, weights = F.scaled_dot_product_attention(q, k, v, mask, dropout), None
    else:
        scores = (q * width**-0.5) @ k.transpose(-2, -1)
        weights = F.softmax(scores if mask is None else scores + mask, dim=-1)
        out = F.dropout(weights, module.dropout, training=module.training) @ v
        weights = weights.mean(dim=1) if average_attn_weights else weights
    out = module.out_proj(out.transpose(1, 2).flatten(-2))
    return (out if module.batch_first else out.transpose(0, 1)), weights


def _projected(
    module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `[N, tokens, heads * width]`."""
    bias = module.in_proj_bias
    if module._qkv_same_embed_dim:
        if query is not key or key is not value:
            raise ValueError("attention over several tensors by one weight is not written out")
        q, k, v = F.linear(query, module.in_proj_weight, bias).chunk(3, dim=-1)
        return q, k, v
    weights = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    made = [F.linear(x, w) for x, w in zip((query, key, value), weights, strict=True)]
    if bias is not None:
        made = [x + b for x, b in zip(made, bias.chunk(3), strict=True)]
    return made[0], made[1], made[2]


def _mask(q: Tensor, attn_mask: Tensor | None, padding: Tensor | None, heads: int) -> Tensor | None:
    """What is added to the scores `[N or 1, heads or 1, queries or 1, keys]`."""
    found = None
    for mask in (attn_mask, padding):
        if mask is None:
            continue
        if mask.dim() == 3:
            mask = mask.unflatten(0, (-1, heads))
        elif mask is padding:
            mask = mask[:, None, None, :]
        if mask.dtype == torch.bool:
            mask = q.new_zeros(()).masked_fill(mask, float("-inf"))
        found = mask if found is None else found + mask
    return found
