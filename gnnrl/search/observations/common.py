"""What all observations of a network share: named columns, one-hot kinds, typed edges."""

# E: edges   K: kinds   N: nodes   C: columns

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gnnrl.graph.graph import Node


class Columns(tuple[str, ...]):
    """The names of a table's columns, in order."""

    def table(self, length: int, values: Mapping[str, ArrayLike]) -> np.ndarray:
        """Write values `[length]`, or one for all rows, by column: `[length, C]`, else zero."""
        table = np.zeros((length, len(self)))
        for name, value in values.items():
            table[:, self.index(name)] = value
        return table


def columns_digest(*tables: Sequence[str]) -> str:
    """Return a digest of the names of columns, which changes with any of them."""
    text = "\n".join(", ".join(names) for names in tables)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def one_hot(names: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    """Return a column for each kind, and one for all that are none of them: `[N, K + 1]`."""
    column = [kinds.index(name) if name in kinds else len(kinds) for name in names]
    return np.eye(len(kinds) + 1)[np.array(column, dtype=np.int64)]


def two_way(triples: Sequence[tuple[int, int, int]], kinds: int) -> tuple[Tensor, Tensor]:
    """Return edges (from, to, kind) and their reverse, of kind + 1: `[2, E]`, one-hot `[E, K]`."""
    forward = torch.tensor(triples, dtype=torch.long).reshape(-1, 3)
    both = torch.cat([forward, forward[:, [1, 0, 2]] + torch.tensor([0, 0, 1])])
    return both[:, :2].t().contiguous(), torch.eye(kinds)[both[:, 2]]


def number(node: Node, attribute: str) -> int:
    """Return an attribute's number, the first of several; 0 where it is none."""
    value = node.attributes.get(attribute, 0)
    if isinstance(value, list):
        return int(value[0])
    return int(value) if isinstance(value, int) else 0
