"""How many channels each group should keep, by what losing channels costs.

A group's curve is the residual after its least important channels are removed
(`pruning.compensation.reconstruction`).  Channels are removed where the residual rises least for
the budget that they free; this is the prior of a search, and a baseline without a search.
"""

# G: groups

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

STEPS = (1, 2, 4, 8)
"""Channels that may be removed at once, so that one expensive channel does not stop a group."""


def allocate(
    curves: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    floor: np.ndarray,
    cost: Callable[[np.ndarray], float],
    limit: float,
) -> np.ndarray:
    """Return keep ratios `[G]` that meet the budget with the least total residual (greedily).

    curves: for each group, the residual without its least important 0, 1, 2 ... channels
    `[size + 1]`; groups without a curve keep all channels as long as others can be removed.
    sizes: channels of each group.  floor `[G]`: channels that each keeps at least.  cost: of
    channel counts `[G]`.  limit: in the unit of `cost`.
    """
    whole = np.array(list(sizes.values()))
    known = [
        curves[name].double().numpy().copy() if name in curves else np.full(size + 1, np.inf)
        for name, size in sizes.items()
    ]
    for curve in known:
        curve[0] = 0.0
    counts, current = whole.copy(), cost(whole)
    while current > limit:
        best: tuple[float, int, int, float] | None = None
        for group in range(len(whole)):
            for step in STEPS:
                left = counts[group] - step
                if left < floor[group]:
                    break
                tried = counts.copy()
                tried[group] = left
                freed = current - cost(tried)
                removed = whole[group] - counts[group]
                rise = known[group][removed + step] - known[group][removed]
                slope = (rise if np.isfinite(rise) else 1e30) / max(freed, 1e-12)
                if best is None or slope < best[0]:
                    best = (slope, group, left, current - freed)
        if best is None:
            break
        _, group, counts[group], current = best
    return counts / whole


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
