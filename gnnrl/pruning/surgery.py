"""PruningPlan → subnet: the channels are really removed.

Every parameter is sliced along the axes that shrink; the few places where a network names its
channels by number (a split, a shuffle, the sizes of a reshape, the groups of a convolution) are
rewritten.  What comes out is an ordinary module with the parameter names of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.graph.extract import Analysis, analyse
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.kernels import shrink
from gnnrl.graph.removal import take_out, without
from gnnrl.graph.rules.base import tensors_read
from gnnrl.graph.rules.flow import Layout, is_tensor
from gnnrl.graph.rules.reshape_commute import fitted
from gnnrl.graph.unit_mapping import kept_indices, kept_units
from gnnrl.pruning.gather import ChannelGather
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.proof import prove
from gnnrl.pruning.sparsity import sparsify
from gnnrl.runtime import device_of
from gnnrl.tracing.dress import dressed
from gnnrl.tracing.fx_utils import attribute


def prune(network: nn.Module, graph: ComputationalGraph, plan: PruningPlan) -> nn.Module:
    """The subnet that `plan` leaves of `network`, whose graph is `graph`.

    The network is left as it was.  Raises `UserError` where graph or plan belong to another
    network, and where the first check of the subnet (one batch) finds another function.
    """
    return Surgeon(network, graph).cut(plan)


class Surgeon:
    """Prunes one network again and again: the network is traced once."""

    def __init__(self, network: nn.Module, graph: ComputationalGraph) -> None:
        self.network, self.graph, self._proved = network, graph, False
        self._left: tuple[tuple[frozenset[Any], ...], Analysis] | None = None
        self.analysis: Analysis = _read(network, graph, graph.protected)
        if self.analysis.graph.digest != graph.digest:
            raise UserError(
                f"the graph is not that of this {type(network).__name__} (it has other layers, "
                "widths or connections); extract the network's own graph"
            )

    def cut(self, plan: PruningPlan) -> Any:
        """A new network; parameters that lose nothing are copied too.

        It is a `fx.GraphModule`, but of a network whose own code is no graph the network's kind.
        The first one is compared with the masked network, on one batch.
        """
        analysis = self.reduced(plan)
        keep = kept_units(analysis.graph, plan.kept)
        for layer in plan.weight_sparsity.keys() - analysis.graph.layers.keys():
            raise UserError(
                f"the plan makes layer {layer!r} sparse, which this network does not have; it is "
                "a plan of another network"
            )
        subnet = cut_units(analysis, keep)
        if not self._proved:
            prove(analysis, keep, subnet, thorough=False)
            self._proved = True
        sparsify(subnet, analysis.graph, plan)
        return subnet

    def prove(self, plan: PruningPlan) -> None:
        """Compare the subnet of a plan with the masked network in every way (`proof.prove`)."""
        analysis = self.reduced(plan)
        keep = kept_units(analysis.graph, plan.kept)
        prove(analysis, keep, cut_units(analysis, keep))
        if plan.kernels:
            whole = self.without(plan.removed_layers)
            every = np.ones_like(keep)
            prove(whole, every, cut_units(analysis, every), kernels=plan.kernels)

    def cut_units(self, keep: np.ndarray, explicit: bool = False) -> Any:
        """The subnet of the units with `keep` `[num_units]` true; `explicit` as below."""
        return cut_units(self.analysis, keep, explicit)

    def reduced(self, plan: PruningPlan) -> Analysis:
        """Return the network with all its channels, but only the parts and kernels of a plan."""
        return self.without(plan.removed_layers, plan.kernels)

    def without(self, removed: Iterable[str], kernels: Mapping[str, int] | None = None) -> Analysis:
        """Return the network from which parts were taken out, traced again.

        kernels: for convolutions whose kernels become smaller, the size.  The last one is kept:
        repairing a subnet asks for it several times.
        """
        gone = frozenset(removed), frozenset((kernels or {}).items())
        if not any(gone):
            return self.analysis
        if self._left is None or self._left[0] != gone:
            self._left = gone, self._traced_without(gone[0], dict(gone[1]))
        return self._left[1]

    def _traced_without(self, removed: Iterable[str], kernels: Mapping[str, int]) -> Analysis:
        graph = self.analysis.graph
        reduced = copy.deepcopy(self.analysis.traced)
        if removed:
            take_out(reduced, graph, removed)
        shrink(reduced, without(graph, removed), kernels)
        network = dressed(reduced)
        names = dict(network.named_modules())
        protected = [name for name in graph.protected if name in names]
        return _read(network, graph, protected)


def _read(network: nn.Module, graph: ComputationalGraph, protected: Iterable[str]) -> Analysis:
    dtype = next(network.parameters(), torch.empty(0)).dtype
    example: Any = torch.empty(1, *graph.input_shape, dtype=dtype, device="meta")
    if graph.inputs:
        example = {
            name: torch.empty(1, *shape, dtype=getattr(torch, kind), device="meta")
            for name, (kind, *shape) in graph.inputs.items()
        }
    return analyse(network, example, protected, **graph.settings)


def cut_units(analysis: Analysis, keep: np.ndarray, explicit: bool = False) -> Any:
    """The subnet of the units with `keep` `[num_units]` true.

    explicit: leave gathers that happen to change nothing, so that all plans give the same code.
    """
    sliced = {
        id(tensor): _sliced(tensor, index)
        for name, index in kept_indices(analysis.graph, keep).items()
        for tensor in [attribute(analysis.traced, name)]
    }
    subnet = copy.deepcopy(analysis.traced, sliced)
    fitted_modules: set[str] = set()
    copies = dict(zip(analysis.traced.graph.nodes, subnet.graph.nodes, strict=True))
    for original, node in list(copies.items()):
        layout = analysis.flow.layouts.get(original)
        if original in analysis.flow.gathers:
            _gather(analysis, subnet, copies, original, keep, explicit)
        elif isinstance(layout, Layout) and is_tensor(original):
            _fit(analysis, subnet, original, node, layout, keep, fitted_modules)
    subnet.graph.eliminate_dead_code()
    subnet.delete_all_unused_submodules()
    subnet.recompile()
    return dressed(subnet)


def _sliced(tensor: Tensor, index: tuple[tuple[int, np.ndarray], ...]) -> Tensor:
    """A copy of what is kept of one parameter or buffer."""
    value = tensor.detach()
    for axis, chosen in index:
        if len(chosen) < value.shape[axis]:
            value = value.index_select(axis, torch.from_numpy(chosen).to(value.device))
    value = value.clone() if value.data_ptr() == tensor.data_ptr() else value
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _gather(
    analysis: Analysis,
    subnet: fx.GraphModule,
    copies: dict[fx.Node, fx.Node],
    original: fx.Node,
    keep: np.ndarray,
    explicit: bool,
) -> None:
    """Replace what moved channels by a gather of those that are left."""
    gather, layouts = analysis.flow.gathers[original], analysis.flow.layouts
    ends = [layouts[n] for n in (gather.source, original)]
    if all((analysis.units.of(end.labels) < 0).all() for end in ends):
        return  # it moves no channels that can be removed: it may follow the size of the images
    index, before = gathered(analysis, original, keep)
    node, source = copies[original], copies[gather.source]
    if not explicit and len(index) == before and (index == np.arange(before)).all():
        node.replace_all_uses_with(source)
        copies[original] = source
        return
    name = gather_name(analysis, original)
    device = device_of(subnet)
    dims = len(original.meta["example"].shape)
    picked = torch.from_numpy(index).to(device)
    subnet.add_submodule(name, ChannelGather(gather.axis, dims, picked))
    with subnet.graph.inserting_before(node):
        new = subnet.graph.call_module(name, (source,))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    copies[original] = new


def gather_name(analysis: Analysis, original: fx.Node) -> str:
    """Name of the module that gathers what an operation moved; new in a network cut before."""
    name, taken = f"{original.name}_gather", analysis.traced._modules
    while name in taken:
        name += "_"
    return name


def gathered(analysis: Analysis, original: fx.Node, keep: np.ndarray) -> tuple[np.ndarray, int]:
    """What a gather picks from the channels that are left, and how many are left."""
    gather, stays = analysis.flow.gathers[original], np.append(keep, True)
    before = stays[analysis.units.of(analysis.flow.layouts[gather.source].labels)]
    after = stays[analysis.units.of(analysis.flow.layouts[original].labels)]
    rank = np.cumsum(before) - 1
    return np.where(gather.index >= 0, rank[gather.index], -1)[after], int(before.sum())


def _fit(
    analysis: Analysis,
    subnet: fx.GraphModule,
    original: fx.Node,
    node: fx.Node,
    layout: Layout,
    keep: np.ndarray,
    fitted_modules: set[str],
) -> None:
    """Bring the numbers an operation was written with in line with its new width."""
    stays = np.append(keep, True)
    width = int(stays[analysis.units.of(layout.labels)].sum())
    layer = analysis.flow.layers.get(original)
    if node.op == "call_module":
        if str(node.target) in fitted_modules:
            return
        fitted_modules.add(str(node.target))
        module = subnet.get_submodule(str(node.target))
        read = tensors_read(original)[0]
        reads, axes = analysis.flow.layouts.get(read), len(read.meta["example"].shape)
        along = (-1 if isinstance(module, nn.Linear) else 1) % axes
        inputs = None  # where channels lie along another axis, all of what is read stays
        if isinstance(reads, Layout) and reads.axis == along:
            inputs = int(stays[analysis.units.of(reads.labels)].sum())
        fit_module(module, layer, inputs, width)
    elif layer is not None and layer.per_group:
        position, key = (1, "num_groups") if layer.filters is None else (6, "groups")
        _set_argument(node, position, key, width // _per_group(analysis, original, layer.per_group))
    elif node.target in (nn.functional.layer_norm, getattr(nn.functional, "rms_norm", None)):
        given: Any = node.args[1] if len(node.args) > 1 else node.kwargs["normalized_shape"]
        shape = list(given)
        axis = layout.axis - (len(original.meta["example"].shape) - len(shape))
        if axis >= 0:
            shape[axis] = width
            _set_argument(node, 1, "normalized_shape", tuple(shape))
    elif width < len(layout.labels):  # else a size that follows the image stays as it is written
        node.args, node.kwargs = fitted(node, layout.axis, width)


def _per_group(analysis: Analysis, original: fx.Node, per_group: int) -> int:
    """Channels of the output for each group of the input."""
    layer = analysis.flow.layers[original]
    if layer.filters is None:
        return per_group
    inputs = tensors_read(original)[0].meta["example"].shape[1]
    return len(layer.filters) // (inputs // per_group)


def fit_module(module: nn.Module, layer: Any, inputs: int | None, width: int) -> None:
    """Bring a module's own numbers in line with the width of what it reads and makes."""
    if isinstance(module, nn.modules.conv._ConvNd):
        if layer is not None and layer.per_group and inputs is not None:
            module.groups = inputs // layer.per_group
        module.in_channels = inputs if inputs is not None else module.in_channels
        module.out_channels = width
    elif isinstance(module, nn.Linear):
        module.in_features = inputs if inputs is not None else module.in_features
        module.out_features = width
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        found = [t for t in (module.weight, module.running_mean) if t is not None]
        module.num_features = len(found[0]) if found else width
    elif isinstance(module, nn.GroupNorm):
        if layer is not None and layer.per_group:
            module.num_groups = width // layer.per_group
        module.num_channels = width
    elif hasattr(module, "normalized_shape") and layer is not None and layer.axis is not None:
        norm: Any = module
        sizes = enumerate(norm.normalized_shape)
        norm.normalized_shape = tuple(width if k == layer.axis else n for k, n in sizes)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)


def _set_argument(node: fx.Node, position: int, name: str, value: Any) -> None:
    if len(node.args) > position:
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)
