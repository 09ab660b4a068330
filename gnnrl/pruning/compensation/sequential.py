"""Weights that compensate for what was pruned, without labels and without training.

`collect` measures on the dense network what every layer reads.  From that come the order in which
channels can be removed (`reconstruction`, an importance) and the best weights of the layers that
lose inputs (`gram.GramSolve`, cheap enough for every evaluation).  `compensate` is for the plan
that was chosen: layer by layer it fits the subnet, on its own inputs, to the dense network.
"""

# D, O: as in linear_maps.py

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import members
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.compensation.elimination import ridged
from gnnrl.pruning.compensation.linear_maps import Reader, inner_nodes, readers, rewrite
from gnnrl.pruning.compensation.moments import FEW, PLACES
from gnnrl.pruning.compensation.samples import positions, rows, used_places, values
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


class Targets:
    """Draws the places at which the subnet is fitted to the dense network."""

    def __init__(
        self, surgeon: Surgeon, found: Sequence[Reader], images: Tensor, generator: torch.Generator
    ) -> None:
        """found: layers of the dense network.  images `[n, C, H, W]`: calibration images."""
        self.images, self.generator = _in_memory(images), generator
        traced = _channels_last(surgeon.analysis.traced)
        self._used = used_places(traced, found, self.images[:FEW])
        self._dense = Stepper(traced, self.images, {r.end for r in found})

    def of(self, reader: Reader) -> Target:
        """Return the dense network's values at places of a layer's end, drawn at random."""
        wanted, n = self._dense.run_to(reader.end), len(self.images)
        count = min(PLACES, max(PLACES // 2, ENOUGH_ROWS // n))
        used = self._used.get(reader.layer)
        chosen = positions(reader, wanted.shape, n, count, self.generator, used)
        return Target(chosen, values(wanted, reader, chosen), wanted.shape[-1])

    def release(self, reader: Reader) -> None:
        """The values at this end are not needed any more."""
        self._dense.release(reader.end)


class Refit:
    """Fits the subnets of many plans on the same images, which pass the dense network only once."""

    def __init__(self, surgeon: Surgeon, images: Tensor, generator: torch.Generator) -> None:
        """images `[n, C, H, W]`: calibration images."""
        self.first = self.each = len(images)  # forward images, of the dense network and of a plan
        self.surgeon, self.images, self.generator = surgeon, images, generator
        self.targets: dict[str, Target] = {}
        found = readers(surgeon.analysis)
        drawn = Targets(surgeon, found, images, generator)
        for reader in found:
            self.targets[reader.layer] = drawn.of(reader)
            drawn.release(reader)

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
    analysis = surgeon.reduced(plan)
    graph, whole = analysis.graph, {r.layer: r for r in readers(surgeon.analysis)}
    found = [r for r in readers(analysis) if _same_end(r, whole.get(r.layer))]
    after_removal = _after(surgeon.analysis.graph, plan)
    stays = np.append(kept_units(graph, plan.kept), True)
    subnet = surgeon.cut(plan)
    running, images = _channels_last(subnet), _in_memory(images)
    ends = [whole[r.layer] for r in found]
    known = targets or {}
    drawn = Targets(surgeon, ends, images, generator) if targets is None else None
    cut = Stepper(running, images)
    changed = False
    for reader, dense in zip(found, ends, strict=True):
        cut.run_before(reader.node)
        x = cut.value(_source(running, reader))
        width = x.shape[-1 if reader.linear else 1]
        other = width < len(reader.units) or reader.layer in plan.kernels
        changed = changed or other or reader.layer in after_removal
        if changed:
            target = known[reader.layer] if drawn is None else drawn.of(dense)
            filters = np.flatnonzero(stays[graph.layers[reader.layer].filter_units])
            _fit(running, reader, x, target, torch.from_numpy(filters), cut)
        if drawn is not None:
            drawn.release(dense)
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
        base = values(cut.value(_other(running, reader)), reader, chosen)
    inputs = rows(x, reader, chosen, dense.width)
    if not reader.has_constant:
        inputs = inputs[:, :-1]
    matrix = inputs.t() @ inputs / len(inputs)
    factors = torch.linalg.lu_factor(ridged(matrix, reader.has_constant))

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
    inner = {node.name for node in inner_nodes(names, reader)}
    return next(n.name for n in names[reader.end].all_input_nodes if n.name not in inner)
