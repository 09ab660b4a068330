"""Moments of what every layer of the dense network reads, and the importance that they give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gnnrl.graph.extract import Analysis
from gnnrl.graph.graph import ChannelGroup
from gnnrl.graph.rules.flow import shape_of
from gnnrl.progress import progress
from gnnrl.pruning.compensation.elimination import Elimination, Moments, eliminate
from gnnrl.pruning.compensation.linear_maps import (
    Reader,
    folded,
    positions,
    readers,
    rows,
)
from gnnrl.pruning.compensation.stepper import Stepper, out_of_place
from gnnrl.pruning.importance import Importance, l1_normalised

PIXELS = 2**20
"""Of the images that pass at once: the backward pass keeps all values."""

PLACES = 32
"""Places of an image at which a layer is looked at."""


@dataclass(frozen=True)
class Calibration:
    """What the layers of a dense network read: moments by layer.

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
    projections: int = 2,
    batch_size: int | None = None,
    visible: bool = False,
) -> Calibration:
    """Moments on calibration images `[n, C, H, W]`, which need no labels.

    projections: random directions of the answer whose gradients make the metric; 0: no metric.
    batch_size: None: as many as have `PIXELS`, at most 256.  visible: show a progress bar.
    Costs n forward images, and for each projection a backward pass over them.
    """
    found = tuple(readers(analysis))
    traced = out_of_place(analysis.traced)
    sums: dict[str, Tensor] = {}
    metric: dict[str, Tensor] = {}
    batch_size = batch_size or min(256, max(1, PIXELS // math.prod(images.shape[2:])))
    with progress("calibration", len(images), visible=visible) as shown:
        for part in images.split(batch_size):
            _moments_of(traced, found, part, places, generator, sums)
            if projections:
                _metrics_of(traced, found, part, projections, generator, metric)
            shown.advance(len(part))
    return Calibration(
        found,
        {
            r.layer: Moments(
                (sums[r.layer] / sums[r.layer][-1, -1]).cpu(),
                folded(analysis.traced, r).cpu(),
                (metric[r.layer] / (len(images) * projections)).cpu() if projections else None,
            )
            for r in found
        },
        len(images) * (1 + (1 + 2 * projections if projections else 0)),
    )


def _moments_of(
    traced: fx.GraphModule,
    found: tuple[Reader, ...],
    part: Tensor,
    places: int,
    generator: torch.Generator,
    sums: dict[str, Tensor],
) -> None:
    stepper = Stepper(traced, part)
    for reader in found:
        stepper.run_before(reader.node)
        x = stepper.value(reader.source)
        shape = _output_shape(traced, reader, len(part))
        chosen = positions(shape, places, generator)
        inputs = rows(x, reader, chosen, shape[-1])
        product = inputs.t() @ inputs
        sums[reader.layer] = sums.get(reader.layer, 0) + product


def _output_shape(traced: fx.GraphModule, reader: Reader, images: int) -> torch.Size:
    node = next(n for n in traced.graph.nodes if n.name == reader.node)
    return torch.Size((images, *shape_of(node)[1:]))


def _metrics_of(
    traced: fx.GraphModule,
    found: tuple[Reader, ...],
    part: Tensor,
    projections: int,
    generator: torch.Generator,
    metric: dict[str, Tensor],
) -> None:
    """Second moments of the gradients of random projections of the answer."""
    kept: dict[str, Tensor] = {}
    named = {reader.end for reader in found}

    class Remember(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n.name in named:
                kept[n.name] = value
            return value

    with torch.enable_grad():
        answer = Remember(traced).run(part.clone().requires_grad_())
        ends = [kept[reader.end] for reader in found]
        for i in range(projections):
            direction = torch.randn(answer.shape, generator=generator).to(answer.device)
            direction = direction - direction.mean(1, keepdim=True)
            last = i == projections - 1
            gradients = torch.autograd.grad(answer, ends, direction, retain_graph=not last)
            for reader, gradient in zip(found, gradients, strict=True):
                flat = gradient.transpose(0, 1).flatten(1)
                product = flat @ flat.t()
                metric[reader.layer] = metric.get(reader.layer, 0) + product


def reconstruction(
    network: nn.Module, analysis: Analysis, calibration: Calibration, visible: bool = False
) -> tuple[Importance, Mapping[str, Tensor]]:
    """Importance by elimination, and for each group what its channels cost.

    The curves hold, for each group, the residual after its least important 0, 1, 2 … channels went
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
            order, prices = eliminate(states, group.size, shown.advance)
            cumulative = torch.tensor([0.0, *prices], dtype=torch.float64).cumsum(0)
            score = torch.empty(group.size, dtype=torch.float64)
            score[torch.tensor(order)] = cumulative[1:] + torch.arange(group.size) * 1e-12
            scores[group.name], curves[group.name] = score, cumulative
    return Importance(scores), curves


def _members(reader: Reader, group: ChannelGroup) -> list[Tensor]:
    """Return the input channels that each channel of a group makes up; none if some make up none
    or they differ in number."""
    members = [(reader.units == group.start + i).nonzero().flatten() for i in range(group.size)]
    return members if all(len(m) == len(members[0]) > 0 for m in members) else []
