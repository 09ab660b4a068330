"""Rows in which every pair of values of two axes occurs, chosen greedily and always alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, product

Pair = frozenset[tuple[str, str]]  # two of (axis, value)
Row = Mapping[str, str]


def pairs_of(row: Row) -> set[Pair]:
    """The pairs of values that stand in a row."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def pairwise(axes: Mapping[str, Sequence[str]], without: Collection[Pair] = ()) -> list[Row]:
    """Return rows that hold every pair of values which can stand in a row without these pairs.

    Each row is the first of those with the most pairs that no row before it has.
    """
    every = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    open_rows = [(row, pairs_of(row)) for row in every]
    open_rows = [(row, pairs) for row, pairs in open_rows if not pairs & set(without)]
    missing = set().union(*(pairs for _, pairs in open_rows))
    rows: list[Row] = []
    while missing:
        row, pairs = max(open_rows, key=lambda candidate: len(candidate[1] & missing))
        rows.append(row)
        missing -= pairs
    return rows


def with_pair(axes: Mapping[str, Sequence[str]], pair: Pair, without: Collection[Pair]) -> Row:
    """The first row with a pair that has none of the others that are left out."""
    others = set(without) - {pair}
    for values in product(*axes.values()):
        row = dict(zip(axes, values, strict=True))
        found = pairs_of(row)
        if pair in found and not found & others:
            return row
    raise ValueError(f"{set(pair)} stands in no row without the others")
