"""Batch norms that take their statistics from a few images and are then part of the convolutions.

With fixed statistics, a batch norm is one more factor and constant of the convolution before it
(Jacob et al. 2018, section 3.2).  Fusing convolution, norm, addition and ReLU reads each feature
map once instead of four times: on processors, oneDNN adds and rectifies while it convolves.
"""

# N: images   C: channels of a feature map

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from gnnrl.errors import UserError
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.tracing.fx_utils import module_of, only_user, operation_name
from gnnrl.tracing.inplace import stop_writing

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NEIGHBOURS = 8
"""Neighbouring pixels that are normalised in one step."""


class FoldedSubnet:
    """Runs a subnet as `batch_statistics` would, with the statistics of the first images for all.

    It reads the weights that the subnet has when the first images pass, and does not change them.
    Norms that do not directly follow a convolution are not folded; those inside parts that are
    left whole take the statistics of each batch.
    """

    def __init__(self, subnet: fx.GraphModule) -> None:
        if not isinstance(subnet, fx.GraphModule):
            raise UserError(
                f"the norms of {type(subnet).__name__} cannot be folded, for its own code is no "
                "graph: set search.reward.statistics_images to 0"
            )
        self.subnet, (self._twin, units) = subnet, _twin(subnet)
        self._norms = [m for m in units.modules() if isinstance(m, FixedNorm)]
        self._folded = [m for m in units if isinstance(m, FoldedConvolution)]
        named = [name for name, _ in subnet.named_buffers() if name.endswith("running_mean")]
        self._others = len(named) > len({id(norm.norm) for norm in self._norms})

    def first(self, images: Tensor) -> Tensor:
        """Return the output `[N, K]` for images `[N, ...]`, whose statistics norms then have."""
        for norm in self._norms:
            norm.fixed = None
        out = self(images)
        self.fold()
        return out

    def __call__(self, images: Tensor) -> Tensor:
        """Return the output `[N, K]` for further images `[N, ...]`."""
        with batch_statistics(self.subnet) if self._others else contextlib.nullcontext():
            return self._twin(images)

    def fold(self) -> None:
        """Fold norms into their convolutions, with the statistics they have."""
        fixed = [unit.norm.fixed for unit in self._folded if unit.norm.fixed is not None]
        if not fixed:
            return
        mean, variance, scale, shift = torch.cat(fixed, 1)
        factor = scale * torch.rsqrt(variance)
        sizes = [values.shape[1] for values in fixed]
        constants = torch.addcmul(shift, mean, factor, value=-1).split(sizes)
        for unit, *found in zip(self._folded, factor.split(sizes), constants, strict=True):
            unit.fold(*found)


class FixedNorm(nn.Module):
    """A batch norm with the statistics of its first batch.

    fixed: mean, variance with the epsilon on it, scale and shift `[4, C]`, in float32 at least.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.norm = norm
        self.fixed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        rows, many = _side_by_side(x)
        if self.fixed is None:
            self.fixed = self._measured(rows, many)
        mean, variance, scale, shift = self.fixed if many == 1 else self.fixed.repeat(1, many)
        # not F.batch_norm, which refuses the epsilon 0 in some versions of PyTorch
        out = torch.batch_norm(rows, scale, shift, mean, variance, False, 0.0, 0.0, True)
        return out if many == 1 else _one_by_one(out, x)

    def _measured(self, rows: Tensor, many: int) -> Tensor:
        mean = torch.zeros(rows.shape[1], dtype=_wide(rows), device=rows.device)
        mean, variance = torch.batch_norm_update_stats(rows, mean, mean.clone(), 0.0)
        if many > 1:
            mean, variance = mean.view(many, -1), variance.view(many, -1)
            spread = mean.var(0, unbiased=False)  # of the parts that were measured side by side
            mean, variance = mean.mean(0), variance.mean(0) + spread
        variance = variance + self.norm.eps
        scale, shift = self.norm.weight, self.norm.bias
        if scale is None:
            scale, shift = torch.ones_like(mean), torch.zeros_like(mean)
        return torch.stack((mean, variance, scale.to(mean), shift.to(mean)))


class FoldedConvolution(nn.Module):
    """A convolution with the norm, the sum and the ReLU that follow it.

    spare: the other summand is not read again, the sum may be written there.
    """

    def __init__(self, convolution: _ConvNd, norm: FixedNorm, relu: bool, spare: bool) -> None:
        super().__init__()
        self.convolution, self.norm, self.relu, self._spare = convolution, norm, relu, spare
        self._weights: tuple[Tensor, Tensor] | None = None
        self._fused = False

    def forward(self, x: Tensor, summand: Tensor | None = None) -> Tensor:
        if self.norm.fixed is None:
            out = self.norm(self.convolution(x))
            self._fused = self._fusible(out, summand)
        elif self._fused and _is_channels_last(x) and _is_channels_last(summand):
            return (self._in_one if x.device.type == "cpu" else self._on_gpu)(x, summand)
        else:
            assert self._weights is not None
            out = self.convolution._conv_forward(x, *self._weights)
        out = out if summand is None else out + summand
        return out.relu_() if self.relu else out

    def fold(self, factor: Tensor, constant: Tensor) -> None:
        """Apply the norm to weight and bias: times a factor, plus a constant, `[C]` each."""
        weight, bias = self.convolution.weight, self.convolution.bias
        rows = factor.view(-1, *[1] * (weight.ndim - 1))
        constant = constant if bias is None else torch.addcmul(constant, bias.to(factor), factor)
        self._weights = (weight * rows).to(weight.dtype), constant.to(weight.dtype)

    def _fusible(self, out: Tensor, summand: Tensor | None) -> bool:
        """Whether oneDNN or cuDNN can do all of it in one call, and that saves others."""
        c = self.convolution
        plain = c.padding_mode == "zeros" and not isinstance(c.padding, str) and out.ndim == 4
        if out.device.type == "cuda":
            same = summand is None or summand.shape == out.shape
            return plain and self.relu and same and torch.backends.cudnn.is_acceptable(out)
        saves = self.relu if summand is None else self._spare and summand.shape == out.shape
        return saves and plain and _has_onednn(out)

    def _in_one(self, x: Tensor, summand: Tensor | None) -> Tensor:
        assert self._weights is not None
        c, relu = self.convolution, "relu" if self.relu else None
        how = (*self._weights, c.padding, c.stride, c.dilation, c.groups)
        if summand is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *how, "relu", [], "")
        add = torch.ops.mkldnn._convolution_pointwise_.binary
        return add(summand, x, *how, "add", 1.0, relu, [], "")

    def _on_gpu(self, x: Tensor, summand: Tensor | None) -> Tensor:
        assert self._weights is not None
        c, (weight, bias) = self.convolution, self._weights
        how: Any = (bias, c.stride, c.padding, c.dilation, c.groups)
        if summand is None:
            return torch.cudnn_convolution_relu(x, weight, *how)
        return torch.cudnn_convolution_add_relu(x, weight, summand, 1.0, *how)


def _twin(subnet: fx.GraphModule) -> tuple[fx.GraphModule, nn.ModuleList]:
    """Return the same operations on the same weights; norms, folded or not, are in `units`."""
    twin, graph = fx.GraphModule(nn.Module(), fx.Graph()), fx.Graph()
    graph.output(graph.graph_copy(subnet.graph, {}))
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = f"subnet.{node.target}"
    units = nn.ModuleList()
    twin.subnet, twin.units = subnet, units
    twin.graph = graph
    stop_writing(twin)
    writes = any(operation_name(n).endswith("_") for n in graph.nodes if n.op == "call_function")
    for node in list(graph.nodes):
        if isinstance(module_of(node), _BatchNorm):
            _put_unit(twin.graph, units, node, sums=not writes)
    twin.recompile()
    return twin, units


def _put_unit(graph: fx.Graph, units: nn.ModuleList, node: fx.Node, sums: bool) -> None:
    """Replace a norm, the convolution before it and what follows them by one unit.

    sums: nothing is written into tensors, so that a unit may read when the sum was made.
    """
    before, module = node.all_input_nodes[0], module_of(node)
    assert isinstance(module, _BatchNorm)
    norm = FixedNorm(module)
    unit: nn.Module = norm
    taken, reads = [node], [before]
    convolution: Any = module_of(before)
    if type(convolution) in CONVOLUTIONS and len(before.users) == 1:
        taken, reads, spare = [before, node], [before.all_input_nodes[0]], False
        follower = only_user(node)
        if sums and follower is not None and (summand := _summand(follower, node)) is not None:
            taken.append(follower)
            reads.append(summand)
            spare = _is_spare(summand, follower)
            follower = only_user(follower)
        relu = follower is not None and operation_name(follower) in ("relu", "ReLU")
        if follower is not None and relu:
            taken.append(follower)
        unit = FoldedConvolution(convolution, norm, relu, spare)
    units.append(unit)
    with graph.inserting_before(taken[0] if len(reads) == 1 else taken[-1]):
        put = graph.call_module(f"units.{len(units) - 1}", tuple(reads))
    taken[-1].replace_all_uses_with(put)
    for replaced in reversed(taken):
        graph.erase_node(replaced)


def _summand(follower: fx.Node, node: fx.Node) -> fx.Node | None:
    """Return the other summand of a sum; None if it is no plain sum of two."""
    others = [x for x in follower.args if x is not node]
    plain = operation_name(follower) == "add" and len(follower.args) == 2 and not follower.kwargs
    return others[0] if plain and len(others) == 1 and isinstance(others[0], fx.Node) else None


def _is_spare(summand: fx.Node, follower: fx.Node) -> bool:
    """Whether a convolution makes a tensor that only convolutions read before it is added."""
    readers = [user for user in summand.users if user is not follower]
    return all(
        isinstance(module_of(x), FoldedConvolution) and (x is summand or x < follower)
        for x in (summand, *readers)
    )


def _side_by_side(x: Tensor) -> tuple[Tensor, int]:
    """View neighbouring pixels of `[N, C, H, W]` as channels `[1, many C, N H W / many, 1]`.

    Processors work on 16 or 32 channels at a time, and most pruned layers have fewer.
    """
    suits = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if not suits or x.device.type != "cpu" or x.numel() // x.shape[1] % NEIGHBOURS:
        return x, 1
    rows = x.permute(0, 2, 3, 1).reshape(1, -1, 1, NEIGHBOURS * x.shape[1])
    return rows.permute(0, 3, 1, 2), NEIGHBOURS


def _one_by_one(rows: Tensor, x: Tensor) -> Tensor:
    """Undo `_side_by_side`: a view of the shape of `x`."""
    n, c, h, w = x.shape
    return rows.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)


def _is_channels_last(x: Tensor | None) -> bool:
    """Whether a feature map is stored channels last, with no axis of length 1; true for None."""
    if x is None:
        return True
    return x.is_contiguous(memory_format=torch.channels_last) and min(x.shape[1:]) > 1


def _has_onednn(x: Tensor) -> bool:
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    bfloat16 = x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bfloat16 or x.dtype == torch.float32


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
