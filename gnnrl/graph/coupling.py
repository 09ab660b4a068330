"""Which channels must go together: labels, equalities between labels, and the units they make.

Every channel that a layer makes gets a label (an integer).  Operations state that labels must
go together (`couple`) or always stay (`pin`).  `resolve` turns this into units and groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gnnrl.graph.graph import FIXED, ChannelGroup


class Couplings:
    """Labels and what is known about them."""

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._pinned: list[np.ndarray] = []

    def fresh(self, count: int) -> np.ndarray:
        """New labels `[count]`."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def fixed(self, count: int) -> np.ndarray:
        """New labels of channels that are always kept."""
        labels = self.fresh(count)
        self.pin(labels)
        return labels

    def couple(self, a: np.ndarray, b: np.ndarray) -> None:
        """Keep `a[i]` if and only if `b[i]` is kept."""
        if a is not b:
            first, second = np.broadcast_arrays(a, b)
            self._pairs.append((first, second))

    def pin(self, labels: np.ndarray) -> None:
        """Always keep these."""
        self._pinned.append(np.asarray(labels).reshape(-1))

    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """Component of each label `[labels]`, and whether each component is pinned."""
        if self._pairs:
            rows = np.concatenate([a.reshape(-1) for a, _ in self._pairs])
            columns = np.concatenate([b.reshape(-1) for _, b in self._pairs])
        else:
            rows = columns = np.zeros(0, dtype=np.int64)
        size = (self._count, self._count)
        links = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=size)
        count, component = connected_components(links, directed=False)
        pinned = np.zeros(count, dtype=bool)
        if self._pinned:
            pinned[component[np.concatenate(self._pinned)]] = True
        return component, pinned


@dataclass(frozen=True)
class Units:
    """unit_of_label `[labels]`: the unit each label belongs to, -1 for labels that stay."""

    unit_of_label: np.ndarray
    groups: tuple[ChannelGroup, ...]

    def of(self, labels: np.ndarray) -> np.ndarray:
        return self.unit_of_label[labels]


def resolve(couplings: Couplings, filters: Mapping[str, np.ndarray]) -> Units:
    """Units and channel groups.

    filters: for each layer that makes channels, in order of execution, the label of each filter.
    A component without a filter carries no information a layer computes; it stays.
    """
    component, pinned = couplings.components()
    signature: dict[int, list[int]] = {}
    for index, labels in enumerate(filters.values()):
        for c in component[labels].tolist():
            if not pinned[c]:
                signature.setdefault(c, []).append(index)
    members: dict[tuple[int, ...], list[int]] = {}
    for c, layers in signature.items():
        members.setdefault(tuple(layers), []).append(c)

    names = list(filters)
    unit_of_component = np.full(len(pinned), FIXED)
    groups: list[ChannelGroup] = []
    taken: dict[str, int] = {}
    start = 0
    for owners, components in members.items():
        unit_of_component[components] = np.arange(start, start + len(components))
        first = names[owners[0]]
        taken[first] = taken.get(first, 0) + 1
        name = first if taken[first] == 1 else f"{first}#{taken[first]}"
        unique = tuple(names[i] for i in sorted(set(owners)))
        groups.append(ChannelGroup(name, start, len(components), unique))
        start += len(components)
    units = unit_of_component[component] if len(component) else component
    return Units(units, tuple(groups))
