"""What layers read and give at a sample of places: the rows of a least-squares fit.

A place is a pixel of a convolution's output, or a token that a linear layer reads.
"""

# n: images   P: places of an image   I, K, O, D: as in linear_maps.py

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from gnnrl.graph.rules.flow import shape_of
from gnnrl.pruning.compensation.linear_maps import Reader
from gnnrl.tasks.nested import tensors


def positions(
    reader: Reader,
    given: torch.Size,
    images: int,
    count: int,
    generator: torch.Generator,
    used: Tensor | None = None,
) -> Tensor:
    """Draw places of what a layer gives, of shape `given`, flat, `[n, P]`, P at most `count`.

    images: whose places these are.  used: the places that anything reads; None: all are.
    """
    n, places = _grid(reader, given, images)
    if used is None:
        if places <= count:
            return torch.arange(places).repeat(n, 1)
        return torch.randint(places, (n, count), generator=generator)
    if len(used) <= count:
        return used.repeat(n, 1)
    return used[torch.randint(len(used), (n, count), generator=generator)]


def _grid(reader: Reader, given: torch.Size, images: int) -> tuple[int, int]:
    """Images and places of each; one image where tokens cannot be told apart by images."""
    if not reader.linear:
        return given[0], math.prod(given[2:])
    tokens = math.prod(given[:-1])
    return (images, tokens // images) if tokens % images == 0 else (1, tokens)


def rows(x: Tensor, reader: Reader, places: Tensor, width: int) -> Tensor:
    """Return what a layer reads at some places: `[n * P, D]`, channel by channel, tap by tap.

    x: its input `[n, I, H, W]` or, of a linear layer, `[n, ..., I]`.  places `[n, P]`: flat
    positions of its output, which is `width` wide.
    """
    if reader.linear:
        picked = _tokens(x, places)
        return torch.cat([picked, picked.new_ones(len(picked), 1)], 1)
    (ph, pw), (sh, sw), (dh, dw) = reader.padding, reader.stride, reader.dilation
    padded = F.pad(x, (pw, pw, ph, ph)).permute(0, 2, 3, 1).contiguous()
    n, height, across, channels = padded.shape
    places = places.to(x.device)
    base = (torch.arange(n, device=x.device).view(-1, 1) * height + places // width * sh) * across
    base = (base + places % width * sw).view(-1, 1)
    high, wide = reader.kernel
    offsets = [a * dh * across + b * dw for a in range(high) for b in range(wide)]
    taps = torch.tensor(offsets, device=x.device)
    picked = padded.view(-1, channels).index_select(0, (base + taps).view(-1))
    picked = picked.view(-1, len(taps), channels).transpose(1, 2).reshape(len(base), -1)
    return torch.cat([picked, picked.new_ones(len(picked), 1)], 1)


def values(y: Tensor, reader: Reader, places: Tensor) -> Tensor:
    """Return the outputs `[n, O, H, W]` or `[n, ..., O]` of a layer at places, `[n * P, O]`."""
    if reader.linear:
        return _tokens(y, places)
    flat, places = y.flatten(2).transpose(1, 2), places.to(y.device)
    return flat.gather(1, places.unsqueeze(-1).expand(-1, -1, y.shape[1])).reshape(-1, y.shape[1])


def _tokens(x: Tensor, places: Tensor) -> Tensor:
    flat = x.reshape(len(places), -1, x.shape[-1])
    if places.shape[1] == flat.shape[1] == 1:
        return flat.flatten(0, 1)
    index = places.to(x.device).unsqueeze(-1).expand(-1, -1, x.shape[-1])
    return flat.gather(1, index).flatten(0, 1)


@dataclass(frozen=True)
class Pass:
    """A forward pass over images: what the network gives, and the values of the nodes asked for.

    Gradients can be taken of all of them.
    """

    given: Any
    values: Mapping[str, Tensor]

    def gradients(
        self, ends: Sequence[str], generator: torch.Generator, directions: int
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the gradient at each of the nodes `ends` for random directions of what is given."""
        answers = [t for t in tensors(self.given) if t.is_floating_point() and t.requires_grad]
        at = [self.values[name] for name in ends]
        for i in range(directions):
            drawn = [_direction(answer, generator) for answer in answers]
            last = i == directions - 1
            yield torch.autograd.grad(
                answers, at, drawn, retain_graph=not last, materialize_grads=True
            )


def forward(
    traced: fx.GraphModule, images: Tensor, names: Iterable[str], with_gradients: bool = True
) -> Pass:
    """Run a traced network on images, keeping the values of some nodes.

    with_gradients: whether gradients will be taken; if not, values make room as soon as they can.
    """
    kept: dict[str, Tensor] = {}
    wanted = set(names)

    class Remember(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n.name in wanted:
                kept[n.name] = value
            return value

    with torch.set_grad_enabled(with_gradients):
        given = Remember(traced).run(images.clone().requires_grad_(with_gradients))
    return Pass(given, kept)


def _direction(answer: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction; of logits `[n, classes]` one that softmax does not ignore."""
    drawn = torch.randn(answer.shape, generator=generator).to(answer.device)
    if answer.ndim < 2 or answer.shape[1] < 2:
        return drawn
    return drawn - drawn.mean(1, keepdim=True)


def used_places(
    traced: fx.GraphModule, found: Sequence[Reader], images: Tensor
) -> Mapping[str, Tensor]:
    """Return the tokens of each linear layer that anything reads, where some are not read.

    In the last block of a network with a class token, for instance, it is that token alone.
    images: a few `[n, C, H, W]`.
    """
    nodes = {n.name: n for n in traced.graph.nodes}
    tokens = [r for r in found if r.linear and len(shape_of(nodes[r.node])) > 2]
    generator = torch.Generator().manual_seed(0)
    places: dict[str, Tensor] = {}
    if not tokens:
        return places
    ends = [reader.end for reader in tokens]
    for each in forward(traced, images, ends).gradients(ends, generator, 1):
        for reader, gradient in zip(tokens, each, strict=True):
            n, count = _grid(reader, gradient.shape, len(images))
            read = gradient.reshape(n, count, -1).ne(0).any(2).any(0)
            if count > 1 and read.any() and not read.all():
                places[reader.layer] = read.nonzero().flatten().cpu()
    return places
