"""Statistics of the batch norms of a network, taken where the network normalises.

A batch norm is found by the call of PyTorch's function, not by the type of a module: a subclass
that adds an activation, a norm inside a part that is left whole and a norm written by hand are all
reached, and none of them is measured behind its activation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_OF_BATCH = ("input", "running_mean", "running_var", "weight", "bias", "training")
_OF_INSTANCE = (*_OF_BATCH[:5], "use_input_stats")
_REST, _LOWER = ("momentum", "eps"), ("input", "weight", "bias", "running_mean", "running_var")
_BATCH = {
    F.batch_norm: _OF_BATCH + _REST,
    torch.batch_norm: (*_LOWER, "training", *_REST, "cudnn_enabled"),
}
_INSTANCE = {
    F.instance_norm: _OF_INSTANCE + _REST,
    torch.instance_norm: (*_LOWER, "use_input_stats", *_REST, "cudnn_enabled"),
}
Call = dict[str, Any]


class AtNorms(TorchFunctionMode):
    """Within: `do` gives what each norm of `network` gives that uses running statistics now.

    do: takes the arguments of `F.batch_norm` by name (or of `F.instance_norm`, if `do_instance` is
    given; such norms run as they are otherwise).
    """

    def __init__(
        self,
        network: nn.Module,
        do: Callable[[Call], Tensor],
        do_instance: Callable[[Call], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._held = {id(buffer) for buffer in network.buffers()}
        self._do = [(_BATCH, do, "training", False)]  # and whether that is so by default
        if do_instance is not None:
            self._do.append((_INSTANCE, do_instance, "use_input_stats", True))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function of PyTorch."""
        for table, do, own, usual in self._do:
            if func in table:
                call = {**dict(zip(table[func], args, strict=False)), **(kwargs or {})}
                call.pop("cudnn_enabled", None)
                if id(call.get("running_mean")) in self._held and not call.get(own, usual):
                    return do(call)
        return func(*args, **(kwargs or {}))


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running means and variances by those of `batches` of images `[N, C, H, W]`.

    Every batch weighs the same.  Nothing else changes: no weight, no mode, no dropout.
    (EagleEye, Li et al. 2020, section 3.3, calls it adaptive batch normalization.)
    """
    owners = _owners(network)
    if not owners:
        return
    calls: dict[int, int] = {}

    def counted(call: Call) -> Call:
        mean, variance = call["running_mean"], call["running_var"]
        calls[id(mean)] = calls.get(id(mean), 0) + 1
        if calls[id(mean)] == 1:
            mean.zero_()
            variance.fill_(1.0)
        return {**call, "momentum": 1.0 / calls[id(mean)]}  # a cumulative average

    def measure(call: Call) -> Tensor:
        return F.batch_norm(**{**counted(call), "training": True})

    def measure_instances(call: Call) -> Tensor:
        F.instance_norm(**{**counted(call), "use_input_stats": True})
        return F.instance_norm(**call)

    modes = [(m, m.training) for m in network.modules()]
    network.train(False)
    with torch.no_grad(), AtNorms(network, measure, measure_instances):
        for images in batches:
            network(images)
    for module, training in modes:
        module.training = training
    for key, (_, module) in owners.items():
        counter = getattr(module, "num_batches_tracked", None)
        if isinstance(counter, Tensor) and key in calls:
            counter.fill_(calls[key])
    tell_missed(network, calls.keys())


def batch_statistics(network: nn.Module) -> AtNorms:
    """Within: batch norm uses the statistics of what passes, and remembers none of it."""
    return AtNorms(network, _by_batch)


def _by_batch(call: Call) -> Tensor:
    return F.batch_norm(**{**call, "running_mean": None, "running_var": None, "training": True})


def _owners(network: nn.Module) -> dict[int, tuple[str, nn.Module]]:
    """Modules with running statistics, by the identity of their running mean."""
    return {
        id(mean): (name, module)
        for name, module in network.named_modules()
        if isinstance(mean := module._buffers.get("running_mean"), Tensor)
    }


def tell_missed(network: nn.Module, reached: Collection[int]) -> None:
    """Warn of norms with running statistics that no images were measured at.

    reached: identities of the running means where they were.
    """
    missed = [name for key, (name, _) in _owners(network).items() if key not in reached]
    if missed:
        named = ", ".join(missed[:3]) + (" and others" if len(missed) > 3 else "")
        warnings.warn(
            f"{len(missed)} norms keep the statistics they have, they cannot be measured on images "
            f"({named}): they do not call torch.nn.functional.batch_norm with their running mean; "
            "train the subnet to adapt it",
            stacklevel=3,
        )
