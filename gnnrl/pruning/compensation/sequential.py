"""Weights that compensate for what was pruned, without labels and without training.

`collect` measures on the dense network what every layer reads.  From that come the order in which
channels can be removed (`reconstruction`, an importance) and the best weights of the layers that
lose inputs (`gram.GramSolve`, cheap enough for every evaluation).  `compensate` is for the plan
that was chosen: layer by layer it fits the subnet, on its own inputs, to the dense network.
"""

# D, O: as in linear_maps.py

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import members
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.compensation.elimination import ridged
from gnnrl.pruning.compensation.linear_maps import (
    Reader,
    positions,
    readers,
    rewrite,
    rows,
    values,
)
from gnnrl.pruning.compensation.moments import PLACES
from gnnrl.pruning.compensation.stepper import Stepper, out_of_place
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon

ENOUGH_ROWS = 65_536
"""Places in all beyond which a fit samples fewer of each image, down to half of PLACES."""

RECTIFIED_ROUNDS = 3
"""Refits in which outputs that a ReLU sets to zero anyway are ignored."""


@dataclass(frozen=True)
class Target:
    """What the dense network has at the end of a layer: values `[n * P, O]` at places `[n, P]`.

    width: of the map that the places lie in.
    """

    places: Tensor
    values: Tensor
    width: int

    @classmethod
    def of(cls, wanted: Tensor, generator: torch.Generator) -> Target:
        """Return the values of `wanted` `[n, O, H, W]` or `[n, O]` at places drawn at random."""
        count = min(PLACES, max(PLACES // 2, ENOUGH_ROWS // len(wanted)))
        chosen = positions(wanted.shape, count, generator)
        return cls(chosen, values(wanted, chosen), wanted.shape[-1])


class Refit:
    """Fits the subnets of many plans on the same images, which pass the dense network only once."""

    def __init__(self, surgeon: Surgeon, images: Tensor, generator: torch.Generator) -> None:
        """images `[n, C, H, W]`: calibration images."""
        self.surgeon, self.images, self.generator = surgeon, images, generator
        self.targets: dict[str, Target] = {}
        found = readers(surgeon.analysis)
        traced = _channels_last(surgeon.analysis.traced)
        dense = Stepper(traced, _in_memory(images), {r.end for r in found})
        for reader in found:
            self.targets[reader.layer] = Target.of(dense.run_to(reader.end), generator)
            dense.release(reader.end)

    def __call__(self, plan: PruningPlan) -> fx.GraphModule:
        """Return the subnet of a plan, as `compensate` does."""
        return compensate(self.surgeon, plan, self.images, self.generator, self.targets)


def compensate(
    surgeon: Surgeon,
    plan: PruningPlan,
    images: Tensor,
    generator: torch.Generator,
    targets: Mapping[str, Target] | None = None,
) -> fx.GraphModule:
    """Return the subnet of a plan, its layers fitted one after the other to the dense network.

    images `[n, C, H, W]`: calibration images; labels are not needed.  From the first pruned layer
    on, every layer is refitted on its inputs in the subnet, towards the dense network's value at
    the layer's end (the sum with the shortcut, where there is one).  Layers that follow a removed
    part are refitted too.
    targets: by layer, where the dense network's values are known already.
    """
    analysis = surgeon.without(plan.removed_layers)
    graph, whole = analysis.graph, {r.layer: r for r in readers(surgeon.analysis)}
    found = [r for r in readers(analysis) if _same_end(r, whole.get(r.layer))]
    ends = {layer: reader.end for layer, reader in whole.items()}
    after_removal = _after(surgeon.analysis.graph, plan)
    stays = np.append(kept_units(graph, plan.kept), True)
    subnet = surgeon.cut(plan)
    running, images = _channels_last(subnet), _in_memory(images)
    dense = None
    if targets is None:
        network = _channels_last(surgeon.analysis.traced)
        dense = Stepper(network, images, {ends[r.layer] for r in found})
    cut = Stepper(running, images)
    changed = False
    for reader in found:
        cut.run_before(reader.node)
        x = cut.value(_source(running, reader))
        changed = changed or x.shape[1] < len(reader.units) or reader.layer in after_removal
        if changed:
            if targets is not None:
                target = targets[reader.layer]
            else:
                assert dense is not None
                target = Target.of(dense.run_to(ends[reader.layer]), generator)
            filters = np.flatnonzero(stays[graph.layers[reader.layer].filter_units])
            _fit(running, reader, x, target, torch.from_numpy(filters), cut)
        if dense is not None:
            dense.release(ends[reader.layer])
    subnet.load_state_dict(running.state_dict())
    return subnet


def _same_end(reader: Reader, whole: Reader | None) -> bool:
    """Whether a layer ends as in the dense network: by itself, or in a sum with another value."""
    return whole is not None and bool(reader.other) == bool(whole.other)


def _after(graph: ComputationalGraph, plan: PruningPlan) -> set[str]:
    """Return the layers that follow the first part which the plan removes."""
    parts = members(graph) if plan.removed_layers else {}
    removed = {node.name for name in plan.removed_layers for node in parts[name]}
    names = [node.name for node in graph.nodes]
    first = min((names.index(name) for name in removed), default=len(names))
    return {name for name, node in graph.layers.items() if names.index(node.name) > first}


def _channels_last(traced: fx.GraphModule) -> fx.GraphModule:
    return out_of_place(traced).to(memory_format=torch.channels_last)


def _in_memory(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def _source(running: fx.GraphModule, reader: Reader) -> str:
    """What a layer reads in the cut network, where a gather may stand before it."""
    node = next(n for n in running.graph.nodes if n.name == reader.node)
    return node.all_input_nodes[0].name


def _fit(
    running: fx.GraphModule,
    reader: Reader,
    x: Tensor,
    dense: Target,
    filters: Tensor,
    cut: Stepper,
) -> None:
    """Refit one layer of the running cut network, whose `filters` are left."""
    chosen = dense.places
    target = dense.values[:, filters.to(dense.values.device)]
    base = target.new_zeros(())
    if reader.other:
        base = values(cut.value(_other(running, reader)), chosen)
    inputs = rows(x, reader, chosen, dense.width)
    factors = torch.linalg.lu_factor(ridged(inputs.t() @ inputs / len(inputs)))

    def solve(wanted: Tensor) -> Tensor:
        right = inputs.t() @ (wanted - base) / len(inputs)
        return torch.linalg.lu_solve(*factors, right.double()).float()

    best = solve(target)
    for _ in range(RECTIFIED_ROUNDS if reader.rectified else 0):
        reached = inputs @ best + base
        best = solve(torch.where(target > 0, target, reached.clamp(max=0.0)))
    given = inputs[:, :-1] @ best[:-1]
    rewrite(running, reader, best, (given.mean(0), given.var(0)))


def _other(running: fx.GraphModule, reader: Reader) -> str:
    """The other summand of the addition that a layer runs into, in the cut network."""
    names = {n.name: n for n in running.graph.nodes}
    inner = {reader.node}
    following = next(iter(names[reader.node].users))
    while following.name != reader.end:
        inner.add(following.name)
        following = next(iter(following.users))
    return next(n.name for n in following.all_input_nodes if n.name not in inner)
