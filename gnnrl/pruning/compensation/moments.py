"""Moments of the inputs of every layer of the dense network, and the importance by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gnnrl.graph.extract import Analysis
from gnnrl.graph.graph import ChannelGroup
from gnnrl.graph.rules.flow import shape_of
from gnnrl.progress import progress
from gnnrl.pruning.compensation.elimination import Elimination, Moments, eliminate
from gnnrl.pruning.compensation.linear_maps import Reader, folded, readers
from gnnrl.pruning.compensation.samples import Pass, forward, positions, rows, used_places
from gnnrl.pruning.compensation.stepper import out_of_place
from gnnrl.pruning.importance import Importance, l1_normalised

PLACES = 32
"""Places of an image at which a layer is sampled."""

PROJECTIONS = 2
"""Random directions of the outputs whose gradients make the metric."""

FORWARDS = 2
"""Forward passes that a calibration is charged for, as published runs were; it needs one."""

BATCH_SIZE = 256
"""Images that pass the network at once, at most."""

PIXELS = 2**20
"""Of these images: the backward pass keeps all values."""

GRADIENT_PIXELS = 2**22
"""Of images whose gradients are taken, at most: 4,096 images of 32x32, 84 of 224x224, whose layers
are seen at thousands of places each."""

BLOCK = 1024
"""Inputs of a layer whose moments are computed at once."""

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
    """
    found = tuple(readers(analysis))
    traced = out_of_place(analysis.traced)
    sums: dict[str, Tensor] = {}
    metric: dict[str, Tensor] = {}
    batch_size = min(BATCH_SIZE, max(1, PIXELS // math.prod(images.shape[2:])))
    differentiated = _differentiated(images)
    used = used_places(traced, found, images[:FEW])
    names = {name for reader in found for name in (reader.source, reader.end)}
    with progress("calibration", len(images), visible=visible) as shown:
        for part, with_gradients in _parts(images, batch_size, differentiated):

            def draw(reader: Reader, shape: torch.Size, count: int = len(part)) -> Tensor:
                return positions(reader, shape, count, places, generator, used.get(reader.layer))

            seen = forward(traced, part, names, with_gradients)
            _add_moments(traced, found, seen.values, len(part), draw, sums)
            if with_gradients:
                _add_metrics(found, seen, generator, metric)
            del seen  # its values make room for the next ones
            shown.advance(len(part))
    moments = {
        r.layer: Moments(
            _whole(sums[r.layer] / sums[r.layer][-1, -1]).cpu(),
            folded(analysis.traced, r).cpu(),
            (metric[r.layer] / (differentiated * PROJECTIONS)).cpu(),
        )
        for r in found
    }
    return Calibration(found, moments, price(images))


def price(images: Tensor) -> int:
    """Return the forward images that `collect` is charged with.

    `FORWARDS` passes over the images, and for each projection a backward pass over those whose
    gradients are taken.
    """
    return len(images) * FORWARDS + _differentiated(images) * 2 * PROJECTIONS


def _differentiated(images: Tensor) -> int:
    """How many of the images, the first ones, gradients are taken of: `GRADIENT_PIXELS`."""
    return min(len(images), max(1, GRADIENT_PIXELS // math.prod(images.shape[2:])))


def _parts(images: Tensor, size: int, differentiated: int) -> Iterator[tuple[Tensor, bool]]:
    """Yield batches, and whether gradients are taken of them: of the first images."""
    for part, with_gradients in ((images[:differentiated], True), (images[differentiated:], False)):
        for first in range(0, len(part), size):
            yield part[first : first + size], with_gradients


def _add_moments(
    traced: fx.GraphModule,
    found: tuple[Reader, ...],
    values: Mapping[str, Tensor],
    count: int,
    draw: Callable[[Reader, torch.Size], Tensor],
    sums: dict[str, Tensor],
) -> None:
    """Add second moments of what layers read of `count` images at places that are drawn.

    They are symmetric, so that below the blocks of the diagonal nothing is computed.
    """
    nodes = {n.name: n for n in traced.graph.nodes}
    for reader in found:
        x = values[reader.source].detach()
        shape = torch.Size((count, *shape_of(nodes[reader.node])[1:]))
        if reader.linear:
            shape = torch.Size((*x.shape[:-1], shape[-1]))
        inputs = rows(x, reader, draw(reader, shape), shape[-1])
        wide = inputs.shape[1]
        if reader.layer not in sums:
            sums[reader.layer] = inputs.new_zeros(wide, wide)
        for first in range(0, wide, BLOCK):
            own = inputs[:, first : first + BLOCK]
            sums[reader.layer][first : first + BLOCK, first:].addmm_(own.t(), inputs[:, first:])


def _whole(upper: Tensor) -> Tensor:
    """Return a symmetric matrix of which only the blocks on and above the diagonal are known."""
    return upper if len(upper) <= BLOCK else upper.triu() + upper.triu(1).t()


def _add_metrics(
    found: tuple[Reader, ...],
    seen: Pass,
    generator: torch.Generator,
    metric: dict[str, Tensor],
) -> None:
    """Add second moments of the gradients of random projections of the outputs."""
    ends = [reader.end for reader in found]
    for each in seen.gradients(ends, generator, PROJECTIONS):
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
