"""Subnets at the dense network's widths: channels that are cut are zeros.

A GPU computes a pruned network hardly faster than the dense one, but needs long to get ready for
new widths.  With widths that stay, all of an evaluation is recorded once and played again for each
plan (a CUDA graph), and the equations of many plans are solved together.
"""

# P: plans   L: layers of the same size   D, O: as in linear_maps.py

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gnnrl.evaluation.replay import Replay, arriving
from gnnrl.evaluation.reusable_subnet import place_of
from gnnrl.graph.graph import Parameter
from gnnrl.graph.rules.table import look_up
from gnnrl.pruning.compensation.equations import Equations
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.matching import NormMoments
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device_of
from gnnrl.tracing.fx_utils import module_of, operation_name

CHANNELWISE = frozenset(
    "input parameter output conv linear norm activation pool add mul cat reshape pad slice "
    "identity resize".split()
)
"""Operations in which a channel of zeros changes no other; of norms, batch norms alone."""


def can_be_masked(surgeon: Surgeon) -> bool:
    """Whether a channel of zeros in a network does what a channel that is not there does."""
    analysis = surgeon.analysis
    if analysis.network is not analysis.traced:  # its own code is no graph
        return False
    return all(_is_channelwise(node) for node in analysis.traced.graph.nodes)


def _is_channelwise(node: fx.Node) -> bool:
    kind = look_up(node)[0]
    if kind == "norm":
        return isinstance(module_of(node), _BatchNorm)
    return kind in CHANNELWISE and "div" not in operation_name(node)  # 0 / 0


class MaskedSubnet:
    """A network that takes on the weights of any plan, and gives what the plan's subnet gives.

    For networks that `can_be_masked`.  prepare: what to do with its tensors once (a data type, a
    memory format).  norms: what its batch norms are matched to; empty: to nothing.  solve: what
    compensates for lost inputs, which needs norms that are matched.
    """

    def __init__(
        self,
        surgeon: Surgeon,
        prepare: Callable[[fx.GraphModule], fx.GraphModule],
        norms: Mapping[str, NormMoments],
        solve: GramSolve | None = None,
    ) -> None:
        whole = np.ones(surgeon.graph.num_units, dtype=bool)
        self.network = prepare(surgeon.cut_units(whole, explicit=True))
        self._place = device_of(self.network)
        self._stays = torch.ones(len(whole) + 1, dtype=torch.bool, device=self._place)
        self._stacks = None if solve is None else solve.stacks(self._place)
        self._stacked: list[_Stacked] = []
        if self._stacks is not None:
            self._stacked = [
                _Stacked(self.network, layers, maps[0])
                for layers, maps in self._stacks.maps(self._stays[None])
            ]
        refitted = {name for each in self._stacked for name in each.parameters}
        signs = {r.norm for each in self._stacked for r in each.readers if r.norm}
        self._norms = _Norms(self.network, norms, signs, self._place)
        taken = refitted | {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
        self._tensors = [
            _Masked(self.network, name, parameter, self._place)
            for name, parameter in surgeon.graph.parameters.items()
            if parameter.channels and name not in taken
        ]

    def maps(self, keep: np.ndarray) -> list[Tensor]:
        """Return what `take` needs of plans that keep units `[P, num_units]`, bool: `[P, ...]`."""
        fixed = np.ones((len(keep), 1), dtype=bool)
        stays = torch.from_numpy(np.hstack([keep, fixed])).to(self._place)
        if self._stacks is None:
            return [stays]
        return [stays, *(maps for _, maps in self._stacks.maps(stays))]

    def take(self, maps: Sequence[Tensor]) -> None:
        """Take on the plan that belongs to a part of `maps`, once `fill` is called."""
        for mine, given in zip(
            (self._stays, *(each.maps for each in self._stacked)), maps, strict=True
        ):
            mine.copy_(given)

    def fill(self) -> fx.GraphModule:
        """Return the network with the plan's weights, computed on the device alone."""
        for stack in self._stacked:
            stack.fill()
        self._norms.fill(self._stays)
        for tensor in self._tensors:
            tensor.fill(self._stays)
        return self.network


class MaskedRuns:
    """Runs plans one after the other on a masked network, on a GPU without Python in between.

    run: passes the images through the network.  place: where its outputs are wanted; on the
    processor all plans are queued at once, so that the GPU goes on while the first ones are scored.
    """

    def __init__(
        self, subnet: MaskedSubnet, run: Callable[[fx.GraphModule], Tensor], place: torch.device
    ) -> None:
        self._subnet, self._place = subnet, place
        self._replay = Replay(lambda: run(subnet.fill()), device_of(subnet.network))

    def outputs(self, keeps: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield the outputs of plans that keep units `[num_units]`, bool."""
        with torch.inference_mode():
            maps = self._subnet.maps(np.stack(keeps))
        runs = (self._queued([each[k] for each in maps]) for k in range(len(keeps)))
        for run in list(runs) if self._place.type == "cpu" else runs:
            yield run()

    @torch.inference_mode()
    def _queued(self, maps: Sequence[Tensor]) -> Callable[[], Tensor]:
        """Queue a plan; return what waits for its outputs."""
        self._subnet.take(maps)
        return arriving(self._replay(), self._place)


class _Masked:
    """A tensor that is zero where its units are gone."""

    def __init__(self, network: nn.Module, name: str, known: Parameter, place: torch.device):
        self._owner, self._name, self._dense = place_of(network, name)
        self._axes = [
            (each.axis, torch.from_numpy(each.units).to(place)) for each in known.channels
        ]

    def fill(self, stays: Tensor) -> None:
        value = self._dense
        for axis, units in self._axes:
            shape = [-1 if k == axis else 1 for k in range(value.ndim)]
            value = value * stays[units].view(shape)
        self._owner[self._name] = value


class _Norms:
    """All norms that are matched: scale and shift `[C]` of each from one row of numbers."""

    def __init__(
        self,
        network: nn.Module,
        norms: Mapping[str, NormMoments],
        positive: set[str],
        place: torch.device,
    ) -> None:
        """positive: norms whose layers are refitted, with the sign of the scale in the weights."""
        self._owners: list[dict[str, Any]] = [
            network.get_submodule(name)._parameters for name in norms
        ]
        self._sizes = [len(found.std) for found in norms.values()]
        if not norms:
            return
        scales = [
            found.std
            if name in positive
            else torch.copysign(found.std, owner["weight"].detach().to(found.std))
            for (name, found), owner in zip(norms.items(), self._owners, strict=True)
        ]
        self._units = torch.from_numpy(np.concatenate([f.units for f in norms.values()])).to(place)
        self._scale = torch.cat(scales).to(place)
        self._shift = torch.cat([found.mean for found in norms.values()]).to(place)

    def fill(self, stays: Tensor) -> None:
        if not self._owners:
            return
        mask = stays[self._units]
        scales, shifts = (v * mask for v in (self._scale, self._shift))
        parts = zip(self._owners, scales.split(self._sizes), shifts.split(self._sizes), strict=True)
        for owner, scale, shift in parts:
            owner["weight"], owner["bias"] = scale, shift


class _Stacked:
    """Layers of the same size whose weights are refitted; maps `[L, D, O]`."""

    def __init__(self, network: nn.Module, layers: Sequence[Equations], maps: Tensor) -> None:
        self.readers, self.maps = [each.reader for each in layers], maps.clone()
        self._weights = [place_of(network, reader.weight) for reader in self.readers]
        self._biases = [
            place_of(network, reader.bias) if reader.bias else None for reader in self.readers
        ]
        self._shape, self._dtype = self._weights[0][2].shape, self._weights[0][2].dtype

    @property
    def parameters(self) -> set[str]:
        """Names of what it fills."""
        return {name for r in self.readers for name in (r.weight, r.bias) if name}

    def fill(self) -> None:
        maps, (outputs, inputs, *kernel) = self.maps.to(self._dtype), self._shape
        axes = range(2, 2 + len(kernel))
        weights = maps[:, :-1].reshape(len(maps), inputs, *kernel, outputs)
        weights = weights.permute(0, -1, *axes, 1).contiguous().movedim(-1, 2)  # channels last
        for (owner, name, _), weight in zip(self._weights, weights, strict=True):
            owner[name] = weight
        for reader, bias, constant in zip(self.readers, self._biases, maps[:, -1], strict=True):
            if bias is not None:
                bias[0][bias[1]] = torch.zeros_like(constant) if reader.norm else constant
