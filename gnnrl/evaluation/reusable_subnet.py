"""One subnet, refitted for plan after plan: the subnets of a search, without building networks.

`Surgeon.cut` copies the network; an evaluation needs only its weights sliced.  A slot keeps one
subnet and exchanges its tensors, a few milliseconds for a network of a hundred layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from gnnrl.graph.rules.base import tensors_read
from gnnrl.graph.rules.flow import Layout, is_tensor
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.gather import ChannelGather
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon, fit_module, gather_name, gathered
from gnnrl.runtime import device_of


@dataclass(frozen=True)
class _Sliced:
    """A tensor of the subnet: where it is kept, the dense one, the units along each axis."""

    place: dict[str, Any]
    name: str
    dense: Tensor
    axes: tuple[tuple[int, np.ndarray], ...]


class Slot:
    """A subnet of a network that takes on the weights of any plan.

    Networks whose own code names channels by number need new code for each plan, and those whose
    own code is no graph are no one module of operations; for them a fresh subnet is cut.  prepare:
    what to do with the dense tensors and the subnet once (a data type, a memory format).
    """

    def __init__(
        self,
        surgeon: Surgeon,
        prepare: Callable[[fx.GraphModule], fx.GraphModule] = lambda network: network,
    ) -> None:
        self._surgeon, self._prepare = surgeon, prepare
        graph = surgeon.analysis.graph
        self._fixed = False
        if surgeon.analysis.network is not surgeon.analysis.traced:
            return
        whole = np.ones(graph.num_units, dtype=bool)
        fewer = whole.copy()
        fewer[[g.start for g in graph.groups if g.size > 1]] = False
        self._subnet = prepare(surgeon.cut_units(whole, explicit=True))
        self._fixed = self._subnet.code == surgeon.cut_units(fewer, explicit=True).code
        shared: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}
        self._tensors = [
            _Sliced(
                *place_of(self._subnet, name),
                tuple((c.axis, shared.setdefault(c.runs, c.units)) for c in p.channels),
            )
            for name, p in graph.parameters.items()  # a repair writes those of one shape, too
        ]
        self._fits = _fits(surgeon, self._subnet)

    def fill(self, plan: PruningPlan, keep: np.ndarray | None = None) -> Any:
        """Return the subnet of a plan, valid until the next call.  keep: its units, where known."""
        if keep is None:
            keep = kept_units(self._surgeon.analysis.graph, plan.kept)
        if not self._fixed or not cuts_channels_alone(plan):
            return self._prepare(self._surgeon.cut(plan))
        stays = np.append(keep, True)
        index: dict[int, Tensor] = {}  # equal axes share one array
        for tensor in self._tensors:
            value = tensor.dense
            for axis, units in tensor.axes:
                chosen = index.get(id(units))
                if chosen is None:
                    chosen = torch.from_numpy(np.flatnonzero(stays[units])).to(value.device)
                    index[id(units)] = chosen
                value = value.index_select(axis, chosen)
            tensor.place[tensor.name] = value
        for fit in self._fits:
            fit(keep)
        return self._subnet


def cuts_channels_alone(plan: PruningPlan) -> bool:
    """Whether a plan removes channels and nothing else."""
    return not (plan.removed_layers or plan.weight_sparsity or plan.kernels or plan.masks)


def place_of(subnet: nn.Module, name: str) -> tuple[dict[str, Any], str, Tensor]:
    """Return where a parameter or buffer is kept, under which name, and its value."""
    parent, _, last = name.rpartition(".")
    owner = subnet.get_submodule(parent)
    place: dict[str, Any] = owner._parameters if last in owner._parameters else owner._buffers
    return place, last, place[last].detach()


def _fits(surgeon: Surgeon, subnet: fx.GraphModule) -> list[Callable[[np.ndarray], None]]:
    """What running the subnet needs besides tensors: gathers, groups, normalised shapes."""
    flow, units = surgeon.analysis.flow, surgeon.analysis.units
    found: list[Callable[[np.ndarray], None]] = []
    for node in surgeon.analysis.traced.graph.nodes:
        layout = flow.layouts.get(node)
        if node in flow.gathers and gather_name(surgeon.analysis, node) in subnet._modules:
            found.append(_regather(surgeon, node, subnet))
        elif node.op == "call_module" and isinstance(layout, Layout) and is_tensor(node):
            module, layer = subnet.get_submodule(str(node.target)), flow.layers.get(node)
            if not (layer and layer.per_group) and not hasattr(module, "normalized_shape"):
                continue
            read = flow.layouts.get(tensors_read(node)[0])
            inputs = units.of(read.labels) if isinstance(read, Layout) else None
            found.append(_refit(module, layer, inputs, units.of(layout.labels)))
    return found


def _refit(
    module: nn.Module, layer: object, inputs: np.ndarray | None, outputs: np.ndarray
) -> Callable[[np.ndarray], None]:
    def fit(keep: np.ndarray) -> None:
        stays = np.append(keep, True)
        read = None if inputs is None else int(stays[inputs].sum())
        fit_module(module, layer, read, int(stays[outputs].sum()))

    return fit


def _regather(
    surgeon: Surgeon, node: fx.Node, subnet: fx.GraphModule
) -> Callable[[np.ndarray], None]:
    gather, dims = surgeon.analysis.flow.gathers[node], len(node.meta["example"].shape)
    device = device_of(subnet)

    def fit(keep: np.ndarray) -> None:
        index, _ = gathered(surgeon.analysis, node, keep)
        picked = ChannelGather(gather.axis, dims, torch.from_numpy(index)).to(device)
        subnet._modules[gather_name(surgeon.analysis, node)] = picked

    return fit
