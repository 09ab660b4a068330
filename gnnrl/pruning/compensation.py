"""Weights that make up for what a cut took away, without labels and without training.

`collect` measures on the dense network what every layer reads.  From that come the order in which
channels can go (`reconstruction`, an importance) and the best weights of the layers that lose
inputs (`gram.GramSolve`, cheap enough for every evaluation).  `compensate` is for the plan that was
chosen: layer by layer it fits the cut network, on the inputs which it really has, to the dense one.
"""

# D, O: as in readers.py

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from gnnrl.graph.extract import Analysis
from gnnrl.graph.flow import shape_of
from gnnrl.graph.units import kept_units
from gnnrl.pruning.elimination import Elimination, Moments, eliminate, ridged
from gnnrl.pruning.importance import Importance, l1_normalised
from gnnrl.pruning.lockstep import Stepper, out_of_place
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.readers import Reader, folded, positions, readers, rewrite, rows, values
from gnnrl.pruning.surgery import Surgeon

PLACES = 32
"""Places of an image at which a layer is looked at."""

ENOUGH_ROWS = 65_536
"""Places in all beyond which a fit looks at fewer of each image, down to half of PLACES."""

RECTIFIED_ROUNDS = 3
"""Refits in which outputs that a ReLU cuts off anyway are left alone."""


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
    batch_size: int = 256,
) -> Calibration:
    """Moments on calibration images `[n, C, H, W]`, which need no labels.

    projections: random directions of the answer whose gradients make the metric; 0: no metric.
    Costs n forward images, and for each projection a backward pass over them.
    """
    found = tuple(readers(analysis))
    traced = out_of_place(analysis.traced)
    sums: dict[str, Tensor] = {}
    metric: dict[str, Tensor] = {}
    for part in images.split(batch_size):
        _moments_of(traced, found, part, places, generator, sums)
        if projections:
            _metrics_of(traced, found, part, projections, generator, metric)
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
    network: nn.Module, analysis: Analysis, calibration: Calibration
) -> tuple[Importance, Mapping[str, Tensor]]:
    """Importance by elimination, and for each group what its channels cost.

    The curves hold, for each group, the residual after its least important 0, 1, 2 … channels went
    `[size + 1]`.  Groups that no refittable layer reads are ordered by L1 and have no curve.
    """
    graph = analysis.graph
    scores = dict(l1_normalised(network, graph))
    curves: dict[str, Tensor] = {}
    for group in graph.groups:
        states = []
        for reader in calibration.readers:
            members = [
                (reader.units == group.start + i).nonzero().flatten() for i in range(group.size)
            ]
            if all(len(m) == len(members[0]) > 0 for m in members):
                states.append(Elimination(calibration.moments[reader.layer], members, reader.taps))
        if states:
            order, prices = eliminate(states, group.size)
            cumulative = torch.tensor([0.0, *prices], dtype=torch.float64).cumsum(0)
            score = torch.empty(group.size, dtype=torch.float64)
            score[torch.tensor(order)] = cumulative[1:] + torch.arange(group.size) * 1e-12
            scores[group.name], curves[group.name] = score, cumulative
    return Importance(scores), curves


def compensate(
    surgeon: Surgeon, plan: PruningPlan, images: Tensor, generator: torch.Generator
) -> fx.GraphModule:
    """The subnet of a plan, its layers fitted one after the other to the dense network.

    images `[n, C, H, W]`: calibration images; labels are not needed.  Every layer from the first
    cut on is refitted on the inputs that the cut network gives it, towards the value that the
    dense network has at the layer's end (the sum with the shortcut, where it runs into one).
    """
    graph, found = surgeon.analysis.graph, readers(surgeon.analysis)
    stays = np.append(kept_units(graph, plan.kept), True)
    subnet = surgeon.cut(plan)
    running, whole = _channels_last(subnet), _channels_last(surgeon.analysis.traced)
    if images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    dense = Stepper(whole, images, {r.end for r in found})
    cut = Stepper(running, images)
    changed = False
    for reader in found:
        cut.run_before(reader.node)
        x = cut.value(_source(running, reader))
        changed = changed or x.shape[1] < len(reader.units)
        if changed:
            wanted = dense.run_to(reader.end)
            filters = np.flatnonzero(stays[graph.layers[reader.layer].filters.units])
            _fit(running, reader, x, wanted, torch.from_numpy(filters), cut, generator)
        dense.release(reader.end)
    subnet.load_state_dict(running.state_dict())
    return subnet


def _channels_last(traced: fx.GraphModule) -> fx.GraphModule:
    return out_of_place(traced).to(memory_format=torch.channels_last)


def _source(running: fx.GraphModule, reader: Reader) -> str:
    """What a layer reads in the cut network, where a gather may stand before it."""
    node = next(n for n in running.graph.nodes if n.name == reader.node)
    return node.all_input_nodes[0].name


def _fit(
    running: fx.GraphModule,
    reader: Reader,
    x: Tensor,
    wanted: Tensor,
    filters: Tensor,
    cut: Stepper,
    generator: torch.Generator,
) -> None:
    """Refit one layer of the running cut network, whose `filters` are left."""
    places = min(PLACES, max(PLACES // 2, ENOUGH_ROWS // len(wanted)))
    chosen = positions(wanted.shape, places, generator)
    target = values(wanted, chosen)[:, filters.to(wanted.device)]
    base = target.new_zeros(())
    if reader.other:
        base = values(cut.value(_other(running, reader)), chosen)
    width = wanted.shape[-1]
    inputs = rows(x, reader, chosen, width)
    matrix = ridged(inputs.t() @ inputs / len(inputs))

    def solve(wanted: Tensor) -> Tensor:
        right = inputs.t() @ (wanted - base) / len(inputs)
        return torch.linalg.solve(matrix, right.double()).float()

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
