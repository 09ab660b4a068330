"""Whether a network that was read as operations still says what it said."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError, first_line, pass_on_shortage
from gnnrl.tasks.nested import tensors
from gnnrl.tracing.fx_utils import quietly
from gnnrl.tracing.meta import copy_of, evaluating
from gnnrl.tracing.trace import named_inputs, trace

BATCHES = (1, 3)
TOLERANCE = 1e-3
"""Of the largest number that the network gives: other kernels round in another way."""


def check(network: nn.Module, traced: nn.Module, example: Any) -> None:
    """Compare a network with what was read of it, in both modes, on batches of other sizes.

    Tracing answers a network's Python once and for all: the number of images, a type, a random
    number.  Raises `UserError` where that made another function of it, or one that trains in
    another way.  A network without weights in memory cannot be compared.
    """
    if any(t.is_meta for t in (*network.parameters(), *network.buffers())):
        return
    inputs = named_inputs(network, example)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    ours, theirs = evaluating(copy_of(network)), evaluating(copy_of(traced))
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:

        def numbers(value: Any, count: int = batch) -> Any:
            return random_inputs(value, count, device, generator)

        given: Any = fx.node.map_aggregate(inputs, numbers)
        with torch.no_grad(), torch.random.fork_rng():
            try:
                expected = tensors(_called(ours, given))
            except Exception as error:  # a batch that the network itself does not take
                pass_on_shortage(error)
                continue
            try:
                found = tensors(_called(theirs, given))
            except Exception as error:
                pass_on_shortage(error)
                raise _other(network, batch, first_line(error)) from error
        if [a.shape for a in found] != [b.shape for b in expected]:
            raise _other(network, batch, "the shapes are others")
        if any(map(differs, found, expected)):
            raise _other(network, batch, "the numbers are others")
    # what was read before has no Python of its own left, and trains as it was found to train
    if any(True for _ in network.parameters()) and not isinstance(network, fx.GraphModule):
        _check_training(ours, theirs, given)


def is_readable_layer(module: nn.Module) -> bool:
    """Whether a subclass of a convolution or linear layer reads as one, in both modes: its own code
    computes the weight from parameters, for instance."""
    if isinstance(module, nn.modules.conv._ConvNd):
        reach = zip(module.kernel_size, module.dilation, strict=True)
        shape = (module.in_channels, *((k - 1) * d + 1 for k, d in reach))
    elif isinstance(module, nn.Linear):
        shape = (module.in_features,)
    else:
        return False
    example = torch.zeros(2, *shape, dtype=module.weight.dtype)
    try:
        traced = trace(module, example)
        check(module, traced, example)
    except UserError:
        return False
    return not traced.meta["whole"]


def _called(network: nn.Module, given: Mapping[str, Any]) -> Any:
    """What a network gives; its first inputs by their place, as its hooks expect."""
    places = [p.name for p in inspect.signature(network.forward).parameters.values()]
    if list(given) == places[: len(given)]:
        return quietly(network)(*given.values())
    return quietly(network)(**given)


def _check_training(ours: nn.Module, theirs: nn.Module, given: Mapping[str, Any]) -> None:
    """Compare what both give and which parameters they train, with equal random numbers."""
    ours.train(True)
    theirs.train(True)
    with torch.random.fork_rng(), torch.enable_grad():

        def run(network: nn.Module, seed: int) -> list[Tensor]:
            torch.manual_seed(seed)
            return tensors(_called(network, given))

        try:
            expected = run(ours, 0)
        except Exception as error:  # it takes more in training, such as labels
            pass_on_shortage(error)
            return
        try:
            found = run(theirs, 0)
        except Exception as error:
            pass_on_shortage(error)
            raise _untrained(ours, first_line(error)) from error
        if [a.shape for a in found] != [b.shape for b in expected]:
            counts = f"{len(expected)} tensors, {len(found)} when read as a graph"
            raise _untrained(ours, f"it gives {counts}: an auxiliary head, or other shapes")
        if not any(map(differs, found, expected)):
            extra = sorted(_trained(theirs, found) - _trained(ours, expected))
            if extra:
                parts = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in extra))
                raise UserError(
                    f"{type(ours).__name__}: {parts} would be trained in the subnet, while the "
                    "network computes it without gradients (torch.no_grad); write "
                    "requires_grad_(False) on its parameters instead, or move this code into a "
                    "module of its own and protect it (extract.protect)"
                )
            return
        drawn = any(map(differs, run(ours, 1), expected))
        if not drawn or not any(map(differs, run(theirs, 1), found)):
            raise _untrained(ours, "random numbers are lost" if drawn else "the numbers are others")


def _trained(network: nn.Module, given: list[Tensor]) -> set[str]:
    """Names of the parameters that get a gradient."""
    total = [t.sum() for t in given if t.requires_grad and not t.is_complex()]
    named = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if not total or not named:
        return set()
    whole = torch.stack([value.to(total[0]) for value in total]).sum()
    found = torch.autograd.grad(whole, list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, found, strict=True) if gradient is not None}


def _untrained(network: nn.Module, how: str) -> UserError:
    return UserError(
        f"{type(network).__name__}: read as a graph it does not train as the network does ({how}); "
        "switch off what exists in training only before extracting (aux_logits=False), or move "
        "that code into a module of its own and protect it (extract.protect)"
    )


def differs(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two outputs are other numbers; tolerance: of the largest that is expected."""
    a, b = found.double(), expected.double()
    finite = b[b.isfinite()].abs()
    scale = finite.max().item() if len(finite) else 0.0
    return not torch.allclose(a, b, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def random_inputs(value: Any, batch: int, device: torch.device, generator: torch.Generator) -> Any:
    """Random numbers in the shape of an input; whole numbers are those of the example."""
    if not isinstance(value, Tensor):
        return value
    shape = (batch, *value.shape[1:])
    if value.is_floating_point():
        return torch.rand(shape, generator=generator).to(device, value.dtype)
    if value.is_meta or not len(value):
        return torch.zeros(shape, dtype=value.dtype, device=device)
    return value.to(device)[torch.arange(batch) % len(value)]


def larger(given: Any) -> Any:
    """The same images half as large again; None where not all inputs are images."""
    found = tensors(given)
    if not found or any(t.ndim != 4 or not t.is_floating_point() for t in found):
        return None
    return fx.node.map_aggregate(
        given,
        lambda v: (
            v.repeat(1, 1, 2, 2)[:, :, : v.shape[2] * 3 // 2, : v.shape[3] * 3 // 2]
            if isinstance(v, Tensor)
            else v
        ),
    )


def takes_one_size(network: nn.Module, traced: fx.GraphModule, example: Any) -> bool:
    """Whether a network that takes images of other sizes was read for those of the example only.

    Where its Python computes with the size of an image, tracing writes that size down.
    """
    held = (*network.parameters(), *network.buffers())
    if "shell" in traced.meta or any(t.is_meta for t in held):
        return False
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    given: Any = fx.node.map_aggregate(
        named_inputs(network, example), lambda v: random_inputs(v, 1, device, generator)
    )
    given = larger(given)
    if given is None:
        return False
    ours, theirs = evaluating(copy_of(network)), evaluating(copy_of(traced))
    with torch.no_grad(), torch.random.fork_rng():
        try:
            expected = tensors(_called(ours, given))
        except Exception as error:  # the network itself takes this size only
            pass_on_shortage(error)
            return False
        try:
            found = tensors(_called(theirs, given))
        except Exception as error:
            pass_on_shortage(error)
            return True
    return [a.shape for a in found] != [b.shape for b in expected] or any(
        map(differs, found, expected)
    )


def _other(network: nn.Module, batch: int, how: str) -> UserError:
    return UserError(
        f"{type(network).__name__}: read as a graph it is not the same function (with a batch of "
        f"{batch}, {how}): its Python decides by the size of the batch, the type of its input or "
        "a random number, or a hook of the network is lost; move that code into a module of its "
        "own and protect it (extract.protect)"
    )
