"""How many channels each group should keep, read off what losing channels costs.

A group's curve tells the residual that remains after its least important channels went
(`pruning.compensation.reconstruction`).  Channels go where they cost least for the budget that
they free; this is the prior from which a search can start, and a baseline without a search.
"""

# G: groups

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

STEPS = (1, 2, 4, 8)
"""Channels that may go at once: a step over a channel that is dear for itself."""


def allocate(
    curves: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    floor: np.ndarray,
    cost: Callable[[np.ndarray], float],
    limit: float,
) -> np.ndarray:
    """Keep ratios `[G]` whose plan meets the budget with the least total residual (greedily).

    curves: for each group, the residual after its least important 0, 1, 2 ... channels went
    `[size + 1]`; groups without a curve keep all their channels as long as others can go.
    sizes: channels of each group.  floor `[G]`: channels that each keeps at least.  cost: of
    channel counts `[G]`.  limit: what they may cost, in the unit of `cost`.
    """
    whole = np.array(list(sizes.values()))
    known = [
        curves[name].double().numpy().copy() if name in curves else np.full(size + 1, np.inf)
        for name, size in sizes.items()
    ]
    for curve in known:
        curve[0] = 0.0
    counts, price = whole.copy(), cost(whole)
    while price > limit:
        best: tuple[float, int, int, float] | None = None
        for group in range(len(whole)):
            for step in STEPS:
                left = counts[group] - step
                if left < floor[group]:
                    break
                tried = counts.copy()
                tried[group] = left
                freed = price - cost(tried)
                gone = whole[group] - counts[group]
                rise = known[group][gone + step] - known[group][gone]
                slope = (rise if np.isfinite(rise) else 1e30) / max(freed, 1e-12)
                if best is None or slope < best[0]:
                    best = (slope, group, left, price - freed)
        if best is None:
            break
        _, group, counts[group], price = best
    return counts / whole


def sensitivity_curves(
    names: Sequence[str], sizes: np.ndarray, left: np.ndarray, losses: Sequence[float]
) -> dict[str, Tensor]:
    """For each group, what its least important channels cost, from one look at it alone.

    losses `[1 + G]`: of the dense network, then with group g cut to `left[g]` channels.  Between
    them the loss is taken to grow as f^2 / (1 - f) with the fraction f that went: little for the
    first channels, beyond all bounds for the last.  Groups that could not be cut have no curve.
    """
    rise = np.asarray(losses[1:], dtype=np.float64) - losses[0]
    rise = np.maximum(rise, 1e-6 * max(1.0, float(np.abs(rise).max(initial=0.0))))
    curves = {}
    for name, size, kept, cost in zip(names, sizes, left, rise, strict=True):
        if kept < size:
            gone = np.arange(size + 1) / size
            shape = gone**2 / (1.0 - gone + 1.0 / size)
            curves[name] = torch.from_numpy(cost * shape / shape[size - kept])
    return curves
