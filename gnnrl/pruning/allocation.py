"""How many channels each group should keep, by what losing channels costs.

A group's curve is the residual after its least important channels are removed
(`pruning.compensation.reconstruction`).  Channels are removed where the residual rises least for
the budget that they free, in steps of several channels also exchanged between groups.  The result
is the prior of a search, and a baseline without a search.
"""

# G: groups   L: widths that a group may have

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STEPS = (1, 2, 4, 8)
"""Widths that are passed at once, so that one expensive width does not stop a group."""

WORTH = 0.005
"""What an exchange saves at least, as a fraction of the residual: curves are estimates."""

UNKNOWN = 1e30
"""Residual of a channel in a group without a curve."""


def allocate(
    curves: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    floor: np.ndarray,
    cost: Callable[[np.ndarray], float],
    limit: float,
    multiple: int = 1,
) -> np.ndarray:
    """Return keep ratios `[G]` that meet the budget with a small total residual.

    Greedily.  With a multiple of several channels that leaves a part of the budget unused, the more
    so where costs fall in steps, as latency does: then one group is widened and another one
    narrowed as long as the residual falls.

    curves: for each group, the residual without its least important 0, 1, 2 ... channels
    `[size + 1]`, zero first; groups without a curve keep all channels as long as others can be
    removed.  sizes: channels of each group.  floor `[G]`: channels that each keeps at least.
    cost: of channel counts `[G]`.  limit: in the unit of `cost`.  multiple: a group keeps its floor
    and multiples more, or all.
    """
    whole = np.array(list(sizes.values()))
    widths = [np.append(np.arange(f, s, multiple), s) for f, s in zip(floor, whole, strict=True)]
    losses = [
        curves[name].double().numpy()[size - width] if name in curves else UNKNOWN * (size - width)
        for (name, size), width in zip(sizes.items(), widths, strict=True)
    ]

    def counts(at: np.ndarray) -> np.ndarray:
        return np.array([width[place] for width, place in zip(widths, at, strict=True)])

    def price(at: np.ndarray) -> float:
        return cost(counts(at))

    found = _narrowed(losses, price, limit)
    return counts(found if multiple == 1 else _exchanged(found, losses, price, limit)) / whole


class _Change(NamedTuple):
    """Another width of one group, how much residual it adds, and how much cost."""

    group: int
    place: int
    residual: float
    cost: float


def _narrowed(
    losses: Sequence[np.ndarray], cost: Callable[[np.ndarray], float], limit: float
) -> np.ndarray:
    """Return places in the widths `[G]` within the limit; each step loses least for what it frees.

    losses: the residual at each width of a group, the narrowest first `[L]`.  cost: of places.
    """
    at = np.array([len(loss) - 1 for loss in losses])
    while cost(at) > limit:
        freeing = [change for change in _changes(at, losses, cost, -1) if change.cost < 0]
        if not freeing:
            break
        at = _with(at, min(freeing, key=lambda change: -change.residual / change.cost))
    return at


def _exchanged(
    at: np.ndarray, losses: Sequence[np.ndarray], cost: Callable[[np.ndarray], float], limit: float
) -> np.ndarray:
    """Return places `[G]` after all exchanges that are worth it, each the best of its round."""
    while True:
        total = sum(float(loss[place]) for loss, place in zip(losses, at, strict=True))
        room = limit - cost(at)
        wider, narrower = (_changes(at, losses, cost, way) for way in (1, -1))
        pairs = [(w, n) for w in wider for n in narrower if w.group != n.group]
        saving = [
            trade for trade in [*((w,) for w in wider), *pairs]
            if sum(change.residual for change in trade) < -WORTH * total
            and sum(change.cost for change in trade) <= room
        ]  # fmt: skip
        for trade in sorted(saving, key=lambda trade: sum(change.residual for change in trade)):
            if cost(_with(at, *trade)) <= limit:
                at = _with(at, *trade)
                break
        else:
            return at


def _changes(
    at: np.ndarray, losses: Sequence[np.ndarray], cost: Callable[[np.ndarray], float], way: int
) -> list[_Change]:
    """Return all changes of one group to wider (way 1) or narrower (-1) places."""
    now, found = cost(at), []
    for group, (place, loss) in enumerate(zip(at, losses, strict=True)):
        for step in STEPS:
            if 0 <= (new := place + way * step) < len(loss):
                change = _Change(group, new, float(loss[new] - loss[place]), 0.0)
                found.append(change._replace(cost=cost(_with(at, change)) - now))
    return found


def _with(at: np.ndarray, *changes: _Change) -> np.ndarray:
    """Return places `[G]` after changes."""
    after = at.copy()
    for change in changes:
        after[change.group] = change.place
    return after


def sensitivity_curves(
    names: Sequence[str], sizes: np.ndarray, left: np.ndarray, losses: Sequence[float]
) -> dict[str, Tensor]:
    """Return a curve for each group `[size + 1]`, estimated from one loss with it pruned alone.

    losses `[1 + G]`: of the dense network, then with group g pruned to `left[g]` channels.  The
    loss is taken to grow as f^2 / (1 - f) with the fraction f removed: little for the first
    channels, without limit for the last.  Groups that could not be pruned have no curve.
    """
    rise = np.asarray(losses[1:], dtype=np.float64) - losses[0]
    rise = np.maximum(rise, 1e-6 * max(1.0, float(np.abs(rise).max(initial=0.0))))
    curves = {}
    for name, size, kept, cost in zip(names, sizes, left, rise, strict=True):
        if kept < size:
            removed = np.arange(size + 1) / size
            shape = removed**2 / (1.0 - removed + 1.0 / size)
            curves[name] = torch.from_numpy(cost * shape / shape[size - kept])
    return curves
