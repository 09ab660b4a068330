"""Whether a network that was read as operations still says what it said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.tracing.meta import copy_of, evaluating
from gnnrl.tracing.trace import named_inputs

BATCHES = (1, 3)
TOLERANCE = 1e-3
"""Of the largest number that the network gives: other kernels round in another way."""


def check(network: nn.Module, traced: nn.Module, example: Any) -> None:
    """Compare a network with what was read of it, in evaluation mode, on batches of other sizes.

    Tracing answers a network's Python once and for all: the number of images, a type, a random
    number.  Raises `UserError` where that made another function of it.  A network without
    weights in memory cannot be compared.
    """
    if any(t.is_meta for t in (*network.parameters(), *network.buffers())):
        return
    inputs = named_inputs(network, example)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    ours, theirs = evaluating(copy_of(network)), evaluating(copy_of(traced))
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:

        def numbers(value: Any, count: int = batch) -> Any:
            return _numbers(value, count, device, generator)

        given: Any = fx.node.map_aggregate(inputs, numbers)
        with torch.no_grad(), torch.random.fork_rng():
            try:
                expected = list(tensors(ours(**given)))
            except Exception:  # a batch that the network itself does not take
                continue
            try:
                found = list(tensors(theirs(*given.values())))
            except Exception as error:
                raise _other(network, batch, str(error).strip().splitlines()[0]) from error
        if [a.shape for a in found] != [b.shape for b in expected]:
            raise _other(network, batch, "the shapes are others")
        if not all(map(_equal, found, expected)):
            raise _other(network, batch, "the numbers are others")


def _equal(found: Tensor, expected: Tensor) -> bool:
    a, b = found.double(), expected.double()
    finite = b[b.isfinite()].abs()
    scale = finite.max().item() if len(finite) else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=TOLERANCE * scale, equal_nan=True)


def _numbers(value: Any, batch: int, device: torch.device, generator: torch.Generator) -> Any:
    """Random numbers in the shape of an input; whole numbers are those of the example."""
    if not isinstance(value, Tensor):
        return value
    shape = (batch, *value.shape[1:])
    if value.is_floating_point():
        return torch.rand(shape, generator=generator).to(device, value.dtype)
    if value.is_meta or not len(value):
        return torch.zeros(shape, dtype=value.dtype, device=device)
    return value.to(device)[torch.arange(batch) % len(value)]


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in what a network gives."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part)
    elif hasattr(value, "__dict__"):
        yield from tensors(vars(value))


def _other(network: nn.Module, batch: int, how: str) -> UserError:
    return UserError(
        f"{type(network).__name__}: read as a graph it is not the same function (with a batch of "
        f"{batch}, {how}): its Python decides by the size of the batch, the type of its input or "
        "a random number; move that code into a module of its own and protect it (extract.protect)"
    )
