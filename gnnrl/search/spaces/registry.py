"""A search space from its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gnnrl.errors import UserError
from gnnrl.registry import call, named
from gnnrl.search.env import Space
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.channels_and_weights import ChannelWeightSpace
from gnnrl.search.spaces.filters import FilterSpace
from gnnrl.search.spaces.joint import JointSpace
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.search.spaces.single_weights import SingleWeightSpace
from gnnrl.search.spaces.weights import WeightSpace

SPACES: Mapping[str, Callable[..., Space]] = {
    "channels": ChannelSpace,
    "channels_and_weights": ChannelWeightSpace,
    "filters": FilterSpace,
    "joint": JointSpace,
    "layers": LayerSpace,
    "single_weights": SingleWeightSpace,
    "weights": WeightSpace,
}


def build_space(name: str, **offered: Any) -> Space:
    """Return a search space.

    name: a key of SPACES, or `package.module:name` of your own: a function or class that is given
    those of the arguments offered that it names.
    offered: graph, importance, budget, network, table, curves, prior, min_channels, min_fraction,
    multiple, project, view, kernels.
    """
    space = call(named(name, SPACES, "space"), name, **offered)
    missing = [part for part in ("size", "plan", "observation") if not hasattr(space, part)]
    if missing:
        raise UserError(
            f"the space {name} gave a {type(space).__name__} without {', '.join(missing)}: "
            "expected what gnnrl.search.env.Space describes"
        )
    return space
