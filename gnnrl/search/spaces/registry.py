"""A search space from its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.registry import call, named
from gnnrl.search.env import Space
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.filters import FilterSpace
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.search.spaces.weights import WeightSpace

SPACES: Mapping[str, Callable[..., Space]] = {
    "channels": ChannelSpace,
    "filters": FilterSpace,
    "layers": LayerSpace,
    "weights": WeightSpace,
}


def build_space(
    name: str,
    *,
    allocated: bool = False,
    start: Mapping[str, float] | None = None,
    curves: Mapping[str, Tensor] | None = None,
    **offered: Any,
) -> Space:
    """Return a search space.

    name: a key of SPACES, or `package.module:name` of your own: a function or class that is given
    those of the arguments offered that it names.
    offered: graph, importance, budget, network, table, min_channels, min_fraction, multiple,
    project, view.
    allocated: start from an allocation by `curves`, what channels cost.
    start: start from these keep ratios, by group.
    """
    make = named(name, SPACES, "space")
    space = call(make, name, curves=curves, **offered)
    missing = [part for part in ("size", "plan", "observation") if not hasattr(space, part)]
    if missing:
        raise UserError(
            f"the space {name} gave a {type(space).__name__} without {', '.join(missing)}: "
            "expected what gnnrl.search.env.Space describes"
        )
    if not allocated and start is None:
        return space
    if not isinstance(space, ChannelSpace):
        raise UserError(
            f"the prior is an allocation of channels, which space {name} does not decide: set "
            "search.prior to none"
        )
    prior = (
        space.allocation(curves or {}) if allocated else np.array([start[n] for n in space.names])
    )
    return call(make, name, curves=curves, prior=prior, **offered)
