"""What of a network can be pruned, what is left whole and why, and how small it can get."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnrl.graph.cost import cost, cost_of_units
from gnnrl.graph.graph import ComputationalGraph


def coverage(graph: ComputationalGraph) -> dict[str, Any]:
    """Channel groups, parts left whole, layers that keep all filters, smallest fractions of cost.

    The smallest network keeps one channel of each group.
    """
    least, whole = cost_of_units(graph, _fewest(graph)), cost(graph)
    return {
        "groups": [
            {"name": g.name, "channels": g.size, "layers": list(g.layers)} for g in graph.groups
        ],
        "whole": dict(graph.whole),
        "kept": {
            name: _why(graph, name)
            for name, node in graph.layers.items()
            if (node.filter_units < 0).all()
        },
        "smallest": {
            "flops": least.flops / max(whole.flops, 1),
            "parameters": least.parameters / max(whole.parameters, 1),
        },
        "one_size": graph.one_size,
    }


def _fewest(graph: ComputationalGraph) -> np.ndarray:
    """One unit of each group, and more where an operation would read nothing `[num_units]`."""
    keep = np.zeros(graph.num_units, dtype=bool)
    keep[[group.start for group in graph.groups]] = True
    for runs in graph.axes:
        if not any(first < 0 or keep[first : first + count].any() for first, count, _ in runs):
            keep[runs[0][0]] = True
    return keep


def _why(graph: ComputationalGraph, layer: str) -> str:
    if any(layer == name or layer.startswith(f"{name}.") for name in graph.protected):
        return "protected"
    return "its channels reach the output, a part left whole, or a layer norm of a transformer"


def summary(covered: dict[str, Any]) -> str:
    """The coverage in a few lines of text."""
    smallest = covered["smallest"]
    channels = sum(group["channels"] for group in covered["groups"])
    lines = [
        f"{len(covered['groups'])} groups of {channels} channels can be pruned, down to "
        f"{smallest['flops']:.1%} of the flops and {smallest['parameters']:.1%} of the parameters"
    ]
    lines += [f"left whole: {part}: {why}" for part, why in covered["whole"].items()]
    if covered["one_size"]:
        lines.append(
            "images of this size only: the network takes others, but computes with their size in "
            "Python; extract again for another size"
        )
    return "\n".join(lines)
