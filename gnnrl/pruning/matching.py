"""Batch norm of a cut network, matched to what the dense network gives on the same images.

A network's running statistics belong to its training, augmentation included; measured anew on
plain images they make even the dense network worse.  So a pruned network does not get new
statistics with the old scale: scale and shift are set so that each norm's output has the mean and
variance of the dense network's on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import without
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.batch_norm import AtNorms, Call, recalibrate
from gnnrl.pruning.plan import PruningPlan

Runs = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class NormMoments:
    """Output of a batch norm of the dense network: mean, standard deviation `[C]`; units of its
    channels `[C]` (the same array for norms of the same channels)."""

    mean: Tensor
    std: Tensor
    units: np.ndarray

    def to(self, precision: torch.dtype) -> NormMoments:
        """Return the same as numbers of another kind, so that `match` need not convert them."""
        return replace(self, mean=self.mean.to(precision), std=self.std.to(precision))


def norm_moments(
    network: nn.Module,
    graph: ComputationalGraph,
    images: Tensor,
    batch_size: int = 512,
    run: Callable[[Tensor], object] | None = None,
) -> dict[str, NormMoments]:
    """Measure the output of every affine batch norm on images `[N, C, H, W]`, by its name.

    It is the output of the norm itself, also where its module goes on with an activation.
    run: passes a batch through the network, where more than that is to be done with it.
    """
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    names = {
        id(weight): name
        for name, module in network.named_modules()
        if (weight := module._parameters.get("weight")) is not None and "bias" in module._parameters
    }

    def remember(call: Call) -> Tensor:
        given = F.batch_norm(**call)
        name = names.get(id(call.get("weight")))
        if name is not None:
            flat = given.detach().double().transpose(0, 1).flatten(1)
            total, square, count = sums.get(name, (0, 0, 0))
            moments = total + flat.sum(1), square + flat.square().sum(1), count + flat.shape[1]
            sums[name] = moments
        return given

    modes = [(m, m.training) for m in network.modules()]
    try:
        network.train(False)
        with torch.no_grad(), AtNorms(network, remember):
            for part in images.split(batch_size):
                (run or network)(part)
    finally:
        for module, training in modes:
            module.training = training
    shared: dict[Runs, np.ndarray] = {}
    found = {}
    for name, (total, square, count) in sums.items():
        mean = total / count
        std = (square / count - mean**2).clamp(min=0.0).sqrt()
        found[name] = NormMoments(mean, std, _units(graph, name, len(mean), shared))
    return found


def _units(
    graph: ComputationalGraph, name: str, size: int, shared: dict[Runs, np.ndarray]
) -> np.ndarray:
    parameter = graph.parameters.get(f"{name}.weight")  # None: its layer is taken out
    channels = parameter.channels if parameter is not None else ()
    if not channels:
        return np.full(size, -1)
    return shared.setdefault(channels[0].runs, channels[0].units)


def match(subnet: nn.Module, moments: Mapping[str, NormMoments], keep: np.ndarray) -> None:
    """Set scale and shift of the norms of a subnet so that they match, in place.

    keep `[num_units]`: units that the subnet keeps.  Its statistics then have to be those of the
    images: batch statistics, or `recalibrate` on them.
    """
    stays, index = np.append(keep, True), dict[int, Tensor]()
    for name, found in moments.items():
        place = _norm(subnet, name)
        if place is None:  # taken out with its layer
            continue
        chosen = index.get(id(found.units))  # norms of the same channels share one array
        if chosen is None:
            chosen = torch.from_numpy(np.flatnonzero(stays[found.units])).to(found.mean.device)
            index[id(found.units)] = chosen
        parameter = place["weight"]
        assert parameter is not None
        weight = parameter.detach()
        scale = torch.copysign(found.std.index_select(0, chosen).to(weight), weight)
        place["weight"] = nn.Parameter(scale)
        place["bias"] = nn.Parameter(found.mean.index_select(0, chosen).to(weight))


def _norm(subnet: nn.Module, name: str) -> dict[str, nn.Parameter | None] | None:
    """Where the parameters of a norm are kept."""
    try:
        return subnet.get_submodule(name)._parameters
    except AttributeError:
        return None


def recalibrate_matched(
    network: nn.Module,
    graph: ComputationalGraph,
    subnet: nn.Module,
    plan: PruningPlan,
    images: Tensor,
    batch_size: int = 512,
) -> None:
    """Measure the norms of a plan's subnet on images, matched to the network, in place."""
    reduced = without(graph, plan.removed_layers)
    match(
        subnet, norm_moments(network, reduced, images, batch_size), kept_units(reduced, plan.kept)
    )
    recalibrate(subnet, images.split(batch_size))
