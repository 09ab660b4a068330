"""A search space from its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gnnrl.errors import UserError
from gnnrl.registry import call, named, takes

if TYPE_CHECKING:
    from gnnrl.search.env import Space

SPACES: Mapping[str, str] = {
    "channels": "gnnrl.search.spaces.channels:ChannelSpace",
    "channels_and_weights": "gnnrl.search.spaces.channels_and_weights:ChannelWeightSpace",
    "filters": "gnnrl.search.spaces.filters:FilterSpace",
    "joint": "gnnrl.search.spaces.joint:JointSpace",
    "layers": "gnnrl.search.spaces.layers:LayerSpace",
    "weights": "gnnrl.search.spaces.weights:WeightSpace",
}
"""Where they are, by name."""


def build_space(name: str, **offered: Any) -> Space:
    """Return a search space.

    name: a key of SPACES, or `package.module:name` of your own: a function or class that is given
    those of the arguments offered that it names.
    offered: graph, importance, budget, network, table, curves, prior, min_channels, min_fraction,
    multiple, project, view; and, made of these, widths: the space of channels, whose budget may be
    out of reach.
    """
    from gnnrl.search.spaces.channels import Widths

    kind = named(name, SPACES, "space")
    if takes(kind, "widths"):
        offered["widths"] = call(Widths, "channels", **offered)
    space = call(kind, name, **offered)
    missing = [part for part in ("size", "plan", "observation") if not hasattr(space, part)]
    if missing:
        raise UserError(
            f"the space {name} gave a {type(space).__name__} without {', '.join(missing)}: "
            "expected what gnnrl.search.env.Space describes"
        )
    return space
