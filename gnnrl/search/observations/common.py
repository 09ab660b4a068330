"""What all observations of a network write alike: typed edges, and attributes that may be pairs."""

# E: edges   K: kinds of edges

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def two_way(triples: Sequence[tuple[int, int, int]], kinds: int) -> tuple[Tensor, Tensor]:
    """Return edges (from, to, kind) and their reverse, of kind + 1: `[2, E]`, one-hot `[E, K]`."""
    forward = torch.tensor(triples, dtype=torch.long).reshape(-1, 3)
    both = torch.cat([forward, forward[:, [1, 0, 2]] + torch.tensor([0, 0, 1])])
    return both[:, :2].t().contiguous(), torch.eye(kinds)[both[:, 2]]


def first_number(value: object) -> int:
    """Return an attribute's number, the first of several; 0 where it is none."""
    if isinstance(value, list):
        return int(value[0])
    return int(value) if isinstance(value, int) else 0
