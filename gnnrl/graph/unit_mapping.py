"""From filter indices per layer to units, and back."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph


def kept_units(
    graph: ComputationalGraph, kept: Mapping[str, Iterable[int]], absent: Container[str] = ()
) -> np.ndarray:
    """Return which units are kept, bool `[num_units]`; kept: filters by layer.

    Layers that are not named keep everything, except those that are `absent` from the subnet.
    Raises `UserError` where the filters do not fit this graph: a layer it does not have, an index
    out of range, or layers whose filters must be removed together and are not.
    """
    votes = np.full(graph.num_units, -1, dtype=np.int8)  # -1: nobody asked, 0: removed, 1: kept
    voter = np.full(graph.num_units, -1)
    layers = list(graph.layers)
    for name in kept:
        if name not in graph.layers:
            raise UserError(
                f"the plan names layer {name!r}, which this network does not have (its layers: "
                f"{_some(layers)}); it is a plan of another network"
            )
    for index, (name, node) in enumerate(graph.layers.items()):
        if name in absent:
            continue
        units = node.filter_units
        stays = np.ones(len(units), dtype=bool)
        if name in kept:
            chosen = np.fromiter(kept[name], dtype=np.int64)
            if len(chosen) and chosen.max() >= len(units):
                raise UserError(
                    f"the plan keeps filter {chosen.max()} of layer {name!r}, which has "
                    f"{len(units)}; it is a plan of another network"
                )
            stays[:] = False
            stays[chosen] = True
            if not stays[units < 0].all():
                raise UserError(
                    f"the plan removes filters of layer {name!r} that must be kept "
                    "(they reach the output, or the layer is protected)"
                )
        free = units >= 0
        now, mine = stays[free].astype(np.int8), units[free]
        against = (votes[mine] >= 0) & (votes[mine] != now)
        if against.any():
            other = layers[voter[mine[against][0]]]
            raise UserError(
                f"the plan does not keep the same channels in {other!r} and {name!r}, whose "
                "channels must be removed together; keep the same ones in both"
            )
        votes[mine], voter[mine] = now, index
    keep = votes != 0
    _refuse_empty(graph, keep)
    return keep


def _refuse_empty(graph: ComputationalGraph, keep: np.ndarray) -> None:
    """Every operation must have something left to read."""
    stays = np.append(keep, True)
    for runs, node in graph.axes.items():
        if not any(stays[first : first + count].any() or first < 0 for first, count, _ in runs):
            raise UserError(
                f"the plan leaves no channel at {node!r}; keep at least one of those that reach it"
            )


def kept_filters(graph: ComputationalGraph, keep: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Return the filters that each layer keeps with the units `keep`, bool `[num_units]`.

    Layers all of whose filters are fixed are left out.
    """
    stays = np.concatenate([keep, [True]])  # index -1: fixed
    return {
        name: tuple(np.flatnonzero(stays[node.filter_units]).tolist())
        for name, node in graph.layers.items()
        if (node.filter_units >= 0).any()
    }


def kept_indices(
    graph: ComputationalGraph, keep: np.ndarray
) -> Mapping[str, tuple[tuple[int, np.ndarray], ...]]:
    """For each parameter that shrinks, (axis, indices that are kept) of each axis."""
    stays = np.append(keep, True)  # index -1: fixed
    return {
        name: tuple((c.axis, np.flatnonzero(stays[c.units])) for c in parameter.channels)
        for name, parameter in graph.parameters.items()
        if parameter.channels
    }


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown}, … {len(names)} in all"
