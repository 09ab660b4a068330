"""Moments of the inputs of every layer of the dense network, and the importance by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gnnrl.graph.extract import Analysis
from gnnrl.graph.graph import ChannelGroup
from gnnrl.graph.rules.flow import shape_of
from gnnrl.progress import progress
from gnnrl.pruning.compensation.elimination import Elimination, Moments, eliminate
from gnnrl.pruning.compensation.linear_maps import Reader, folded, readers
from gnnrl.pruning.compensation.samples import gradients, positions, rows, used_places
from gnnrl.pruning.compensation.stepper import Stepper, out_of_place
from gnnrl.pruning.importance import Importance, l1_normalised

PLACES = 32
"""Places of an image at which a layer is sampled."""

PROJECTIONS = 2
"""Random directions of the outputs whose gradients make the metric."""

BATCH_SIZE = 256
"""Images that pass the network at once, at most."""

PIXELS = 2**20
"""Of these images: the backward pass keeps all values."""

FEW = 4
"""Images that tell which tokens anything reads."""


@dataclass(frozen=True)
class Calibration:
    """Moments of the inputs of a dense network, by layer.

    forward_images: what it cost; a backward pass counts as two forward passes."""

    readers: tuple[Reader, ...]
    moments: Mapping[str, Moments]
    forward_images: int


def collect(
    analysis: Analysis,
    images: Tensor,
    *,
    generator: torch.Generator,
    places: int = PLACES,
    visible: bool = False,
) -> Calibration:
    """Collect moments on calibration images `[n, C, H, W]`, which need no labels.

    places: of an image, at which a layer is sampled at most.  visible: show a progress bar.
    Costs two forward passes over the images, and a backward pass for each projection.
    """
    found = tuple(readers(analysis))
    traced = out_of_place(analysis.traced)
    sums: dict[str, Tensor] = {}
    metric: dict[str, Tensor] = {}
    batch_size = min(BATCH_SIZE, max(1, PIXELS // math.prod(images.shape[2:])))
    used = used_places(traced, found, images[:FEW])
    with progress("calibration", len(images), visible=visible) as shown:
        for part in images.split(batch_size):

            def draw(reader: Reader, shape: torch.Size, count: int = len(part)) -> Tensor:
                return positions(reader, shape, count, places, generator, used.get(reader.layer))

            _moments_of(traced, found, part, draw, sums)
            _metrics_of(traced, found, part, generator, metric)
            shown.advance(len(part))
    moments = {
        r.layer: Moments(
            (sums[r.layer] / sums[r.layer][-1, -1]).cpu(),
            folded(analysis.traced, r).cpu(),
            (metric[r.layer] / (len(images) * PROJECTIONS)).cpu(),
        )
        for r in found
    }
    return Calibration(found, moments, len(images) * (2 + 2 * PROJECTIONS))


def _moments_of(
    traced: fx.GraphModule,
    found: tuple[Reader, ...],
    part: Tensor,
    draw: Callable[[Reader, torch.Size], Tensor],
    sums: dict[str, Tensor],
) -> None:
    stepper, nodes = Stepper(traced, part), {n.name: n for n in traced.graph.nodes}
    for reader in found:
        stepper.run_before(reader.node)
        x = stepper.value(reader.source)
        shape = torch.Size((len(part), *shape_of(nodes[reader.node])[1:]))
        if reader.linear:
            shape = torch.Size((*x.shape[:-1], shape[-1]))
        inputs = rows(x, reader, draw(reader, shape), shape[-1])
        sums[reader.layer] = sums.get(reader.layer, 0) + inputs.t() @ inputs


def _metrics_of(
    traced: fx.GraphModule,
    found: tuple[Reader, ...],
    part: Tensor,
    generator: torch.Generator,
    metric: dict[str, Tensor],
) -> None:
    """Add second moments of the gradients of random projections of the outputs."""
    for each in gradients(traced, found, part, generator, PROJECTIONS):
        for reader, gradient in zip(found, each, strict=True):
            flat = gradient.movedim(-1 if reader.linear else 1, 0).flatten(1)
            metric[reader.layer] = metric.get(reader.layer, 0) + flat @ flat.t()


def reconstruction(
    network: nn.Module, analysis: Analysis, calibration: Calibration, visible: bool = False
) -> tuple[Importance, Mapping[str, Tensor]]:
    """Return the importance by elimination, and for each group the curve of its residual.

    A curve holds the residual after the least important 0, 1, 2 … channels are removed
    `[size + 1]`.  Groups that no refittable layer reads are ordered by L1 and have no curve.
    visible: show a progress bar.
    """
    graph = analysis.graph
    scores = dict(l1_normalised(network, graph))
    curves: dict[str, Tensor] = {}
    with progress("importance", sum(g.size for g in graph.groups), visible=visible) as shown:
        for group in graph.groups:
            states = [
                Elimination(calibration.moments[reader.layer], members, reader.taps)
                for reader in calibration.readers
                if (members := _members(reader, group))
            ]
            if not states:
                shown.advance(group.size)
                continue
            order, costs = eliminate(states, group.size, shown.advance)
            cumulative = torch.tensor([0.0, *costs], dtype=torch.float64).cumsum(0)
            score = torch.empty(group.size, dtype=torch.float64)
            score[torch.tensor(order)] = cumulative[1:] + torch.arange(group.size) * 1e-12
            scores[group.name], curves[group.name] = score, cumulative
    return Importance(scores), curves


def _members(reader: Reader, group: ChannelGroup) -> list[Tensor]:
    """Return the input channels that each channel of a group makes up; none if some make up none
    or they differ in number."""
    members = [(reader.units == group.start + i).nonzero().flatten() for i in range(group.size)]
    return members if all(len(m) == len(members[0]) > 0 for m in members) else []
