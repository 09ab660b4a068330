"""Which channels can be removed, found by gradients through gates: in the manner of AutoBot.

Castells & Yeom (2021) put a trainable gate on every channel and minimise the loss while the flops
are pulled onto a budget.  Here a gate is the probability that a channel passes, drawn anew for
every image: a channel is then either present or absent, never small, which batch norm would undo.
"""

# n: images   U: units   G: groups   K: classes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from gnnrl.graph.budget import largest
from gnnrl.graph.extract import Analysis
from gnnrl.graph.rules.base import tensors_read
from gnnrl.graph.rules.flow import Layout
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.compensation.stepper import out_of_place
from gnnrl.pruning.criteria import BottleneckSettings
from gnnrl.pruning.expected_cost import ExpectedCost
from gnnrl.pruning.importance import Importance
from gnnrl.runtime import device_of
from gnnrl.tasks import nested
from gnnrl.tasks.base import Outputs, Task
from gnnrl.tasks.classification import CLASSIFICATION

OPEN = 4.0
"""Logit of the gates at the start: nearly all passes."""

DESCENT = 0.5
"""Fraction of the batches in which the expected cost comes down to the budget."""

TEMPERATURE = 0.5
"""How far draws are from zero and one; the smaller, the nearer."""


@dataclass(frozen=True)
class Bottleneck:
    """The result of training the gates.

    importance: their logits.  keep_ratios: group name → mean gate; their expected cost is the
    budget.  forward_images: what it cost; a backward pass counts as two forward passes."""

    importance: Importance
    keep_ratios: dict[str, float]
    forward_images: int


class Gates(nn.Module):
    """Lets units pass in what layers read.

    passing `[n, U + 1]`: how much of each unit passes, for each image; the last: what is fixed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[Tensor, int]] = []
        self.passing: Tensor | None = None

    def forward(self, x: Tensor, place: int) -> Tensor:
        assert self.passing is not None
        index, axis = self.places[place]
        shape = [len(x), *[1] * (x.ndim - 1)]
        shape[axis] = -1
        return x * self.passing[:, index].view(shape)


def bottleneck(
    analysis: Analysis,
    images: Tensor,
    *,
    fraction: float,
    generator: torch.Generator,
    resource: str = "flops",
    settings: BottleneckSettings | None = None,
    task: Task = CLASSIFICATION,
) -> Bottleneck:
    """Train the gates on images `[n, C, H, W]`, without labels, for a budget.

    The loss is the divergence from the dense network's outputs, as the task has it.  fraction: of
    the dense cost.  Costs a forward and a backward pass over the batches, and one forward pass of
    the dense network over all images.
    """
    settings = settings or BottleneckSettings()
    dense = _answers(analysis.traced, images, settings.batch_size, task)
    gated, gates = gated_network(analysis)
    expected = ExpectedCost(analysis.graph, resource)
    whole = float(expected(torch.ones(analysis.graph.num_units)))
    logits = torch.full((analysis.graph.num_units,), OPEN, requires_grad=True)
    optimizer = torch.optim.Adam([logits], settings.learning_rate)
    order = torch.empty(0, dtype=torch.long)
    for step in range(settings.batches):
        if len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        chosen, order = order[: settings.batch_size], order[settings.batch_size :]
        done = min(1.0, (step + 1) / (DESCENT * settings.batches))
        optimizer.zero_grad()
        gates.passing = _drawn(logits.sigmoid(), len(chosen), generator).to(images.device)
        with batch_statistics(gated):
            answer = task.joined([task.outputs(gated, images[chosen])])
        task.distance(answer, nested.taken(dense, chosen), "kl", 1.0).backward()
        _toward_the_budget(logits, expected)
        optimizer.step()
        with torch.no_grad():
            logits += _shift(logits, expected, whole * (1.0 + done * (fraction - 1.0)))
    seen = settings.batches * min(settings.batch_size, len(images))
    return _read_off(analysis, logits.detach(), len(images) + 3 * seen)


def _answers(traced: fx.GraphModule, images: Tensor, batch_size: int, task: Task) -> Outputs:
    with torch.no_grad():
        parts = images.split(batch_size)
        return task.joined([task.outputs(traced.eval(), part) for part in parts])


def gated_network(analysis: Analysis) -> tuple[fx.GraphModule, Gates]:
    """A copy of the network with gates before every layer that mixes channels."""
    gated, gates = out_of_place(analysis.traced), Gates()
    gated.add_submodule("unit_gates", gates)
    copies = {node.name: node for node in gated.graph.nodes}
    device = device_of(gated)
    for original, layer in analysis.flow.layers.items():
        if not layer.positions or layer.per_group:  # a depthwise layer: its readers are gated
            continue
        source = tensors_read(original)[0]
        layout = analysis.flow.layouts.get(source)
        if not isinstance(layout, Layout):
            continue
        units = analysis.units.of(layout.labels)
        if (units < 0).all():
            continue
        index = torch.from_numpy(units).remainder(analysis.graph.num_units + 1).to(device)
        node = copies[original.name]
        with gated.graph.inserting_before(node):
            new = gated.graph.call_module("unit_gates", (copies[source.name], len(gates.places)))
        node.replace_input_with(copies[source.name], new)
        gates.places.append((index, layout.axis))
    gated.recompile()
    return gated.requires_grad_(False), gates


def _drawn(chance: Tensor, images: int, generator: torch.Generator) -> Tensor:
    """Draw how much of each unit passes, near 0 or 1, by its chance `[U]`: `[n, U + 1]`.

    The binary concrete distribution (Maddison et al. 2017, section 3.2), whose gradient is known.
    """
    noise = torch.rand((images, len(chance)), generator=generator).clamp(1e-6, 1 - 1e-6)
    sure = (chance.clamp(1e-6, 1 - 1e-6).logit() + noise.logit()) / TEMPERATURE
    return F.pad(sure.sigmoid(), (0, 1), value=1.0)


def _toward_the_budget(logits: Tensor, expected: ExpectedCost) -> None:
    """Add the penalty for the expected cost, so weighted that a step would not change the cost."""
    assert logits.grad is not None
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(expected(logits.sigmoid()), logits)
    logits.grad -= slope * (logits.grad @ slope) / (slope @ slope).clamp(min=1e-30)


def _shift(logits: Tensor, expected: ExpectedCost, target: float) -> float:
    """What to add to all logits so that the expected cost is the target."""

    def fits(shift: float) -> bool:
        return float(expected((logits + shift).sigmoid())) <= target

    return largest(fits, -30.0, 30.0, steps=40)[0]


def _read_off(analysis: Analysis, logits: Tensor, forward_images: int) -> Bottleneck:
    importance = Importance.of_units(analysis.graph, logits)
    keep_ratios = {name: float(part.sigmoid().mean()) for name, part in importance.items()}
    return Bottleneck(importance, keep_ratios, forward_images)
