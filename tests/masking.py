"""The oracle of surgery: the dense network with the channels of a plan held at zero.

It knows nothing of labels, couplings or units.  Masks start at the layers a plan names and travel
with the values through the dense network: an operation that moves elements moves its mask, one
that combines tensors element by element combines their masks, and statistics across channels are
taken over the channels that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.tracing.fx_utils import thawed
from gnnrl.tracing.trace import trace

MOVES = set(
    "view reshape flatten unflatten permute transpose swapaxes movedim unsqueeze squeeze t chunk "
    "split tensor_split unbind narrow select expand expand_as repeat tile repeat_interleave roll "
    "flip channel_shuffle rot90 getitem contiguous clone detach cat concat concatenate stack "
    "Flatten Unflatten ChannelShuffle PixelShuffle PixelUnshuffle pixel_shuffle pixel_unshuffle "
    "reshape_as view_as index_select mT getattr hstack dstack unfold".split()
)
SPATIAL = set(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d "
    "adaptive_max_pool2d interpolate upsample boolean_dispatch lp_pool2d grid_sample".split()
)
REDUCTIONS = {"mean", "sum", "amax", "amin", "std", "var", "logsumexp"}
ELEMENTWISE = set(
    "relu relu_ relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh "
    "sigmoid tanh softplus dropout dropout2d stochastic_depth add add_ iadd sub isub mul mul_ "
    "imul truediv div pow neg abs exp sqrt square clamp maximum minimum softmax log_softmax where "
    "float to alpha_dropout feature_alpha_dropout type_as rsub lerp erf local_response_norm "
    "normalize rsqrt itruediv zeros_like ones_like max min gt lt where cos sin masked_fill eq "
    "ne float_power addcmul addcdiv".split()
)
CREATIONS = {"zeros", "ones", "new_zeros", "new_ones", "full"}


@dataclass(frozen=True)
class Masked:
    """A value of the dense network, and which of its elements are there (it broadcasts)."""

    value: Tensor
    mask: Tensor

    @classmethod
    def of(cls, value: Tensor, mask: Tensor) -> Masked:
        return cls(torch.where(mask, value, torch.zeros((), dtype=value.dtype)), mask)

    @property
    def whole(self) -> Tensor:
        """The mask in the shape of the value."""
        return self.mask.expand(self.value.shape)


def left_whole(network: nn.Module, graph: ComputationalGraph) -> frozenset[str]:
    """The parts of a network that are not read; operations without a rule leave theirs readable."""
    kinds = {name: type(module).__name__ for name, module in network.named_modules()}
    return frozenset(
        node.layer
        for node in graph.nodes
        if node.operation == "opaque" and node.attributes["type"] == kinds.get(node.layer)
    )


class Oracle:
    """A dense network that can be denied the channels which a plan removes.

    whole: parts that are not read.
    """

    def __init__(self, network: nn.Module, image: Any, whole: frozenset[str] = frozenset()) -> None:
        self.traced = trace(network, image, whole)

    def says(self, plan: PruningPlan, *inputs: Tensor) -> Any:
        return values(_Interpreter(self.traced, plan.kept).run(*inputs))


class _Interpreter(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule, kept: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(traced)
        self.kept = kept

    def run_node(self, n: fx.Node) -> Any:
        self.node = n
        return super().run_node(n)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().placeholder(target, args, kwargs)
        return all_there(value) if isinstance(value, Tensor) else value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return all_there(value) if isinstance(value, Tensor) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._apply(target.__name__, target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._apply(target, lambda x, *a, **k: getattr(x, target)(*a, **k), args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            return self._layer(target, -1 if isinstance(module, nn.Linear) else 1, module, args)
        if isinstance(module, nn.GroupNorm):
            return group_norm(args[0], module.num_groups, module.weight, module.bias, module.eps)
        if isinstance(module, nn.LayerNorm):
            return layer_norm(
                args[0], module.normalized_shape, module.weight, module.bias, module.eps
            )
        if isinstance(module, nn.RMSNorm):
            return rms_norm(args[0], module.normalized_shape, module.weight, module.eps)
        if isinstance(module, nn.modules.batchnorm._NormBase) or _is_elementwise(module):
            return Masked.of(module(args[0].value), args[0].mask)
        if "Pool" in type(module).__name__ or isinstance(module, nn.Upsample):
            return pooled(args[0], module(args[0].value))
        if "Pad" in type(module).__name__:
            return self._pad(module, args, kwargs, module.padding)
        return self._apply(type(module).__name__, module, args, kwargs)

    def _apply(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        read: list[Masked] = []
        pick(args, lambda m: read.append(m) or m)
        pick(kwargs, lambda m: read.append(m) or m)
        if not read and name not in CREATIONS:
            return function(*thawed(args), **thawed(kwargs))
        if name == "linear" or name.startswith("conv"):
            given: Any = (*self.node.args[1:2], self.node.kwargs.get("weight"))
            layer = str(given[0].target).rpartition(".")[0]
            axis = -1 if name == "linear" else 1
            return self._layer(layer, axis, function, values(args), **values(kwargs))
        if name == "pad":
            widths = args[1] if len(args) > 1 else kwargs["pad"]
            return self._pad(function, args, kwargs, widths)
        if name == "group_norm":
            return self._norm(group_norm, args, kwargs, "num_groups")
        if name == "layer_norm":
            return self._norm(layer_norm, args, kwargs, "normalized_shape")
        value = function(*values(args), **values(kwargs))
        if name in ("matmul", "bmm", "einsum", "scaled_dot_product_attention"):
            return _product(name, function, args, value)
        if name in ("Embedding", "setitem", "arange", "triu", "invert"):
            return all_there(value) if isinstance(value, Tensor) else value
        if name in CREATIONS:
            return all_there(value)
        if name in MOVES and isinstance(value, Tensor | tuple | list):
            moved = pick(args[0], lambda m: m.whole.double())
            masks = function(moved, *pick(args[1:], whole_number), **pick(kwargs, whole_number))
            return _paired(value, masks)
        if all(m.mask.all() for m in read):
            return fx.node.map_aggregate(
                value, lambda v: all_there(v) if isinstance(v, Tensor) else v
            )
        if not isinstance(value, Tensor):
            return value
        if name in SPATIAL:
            return pooled(read[0], value)
        if name == "rms_norm":
            return self._norm(
                rms_norm, args, kwargs, "normalized_shape", affine=("weight",), eps=None
            )
        if name in ("norm", "vector_norm"):
            return self._reduced(read[0], value, (args[0], *args[2:]), kwargs)
        if name in REDUCTIONS:
            return self._reduced(read[0], value, args, kwargs)
        if name in ("batch_norm", "instance_norm"):
            return Masked.of(value, read[0].mask)
        if name in ("to", "type_as"):  # the other tensor's type alone
            first = args[0]
            return Masked.of(value, first.mask) if isinstance(first, Masked) else all_there(value)
        assert name in ELEMENTWISE, f"the oracle has no rule for {name}"
        mask = read[0].mask
        for other in read[1:]:
            mask = mask & other.mask
        return Masked.of(value, mask)

    def _layer(self, layer: str, axis: int, function: Any, args: Any, **kwargs: Any) -> Masked:
        value = function(*values(args), **kwargs)
        there = torch.ones(value.shape[axis], dtype=torch.bool)
        if layer in self.kept:
            there[:] = False
            there[list(self.kept[layer])] = True
        shape = [1] * value.ndim
        shape[axis] = -1
        return Masked.of(value, there.view(shape))

    def _pad(self, function: Any, args: Any, kwargs: Any, widths: Any) -> Masked:
        value = function(*values(args), **values(kwargs))
        read = args[0]
        if value.shape[1] == read.value.shape[1] and value.ndim == 4:
            return Masked.of(value, read.whole.amax((2, 3), keepdim=True))
        return Masked.of(value, F.pad(read.whole.double(), tuple(widths), value=1.0) > 0)

    def _norm(
        self,
        norm: Any,
        args: Any,
        kwargs: Any,
        second: str,
        affine: tuple[str, ...] = ("weight", "bias"),
        eps: float | None = 1e-5,
    ) -> Masked:
        names = ("input", second, *affine, "eps")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return norm(
            given["input"],
            given[second],
            *(None if given.get(k) is None else given[k].value for k in affine),
            given.get("eps", eps),
        )

    def _reduced(self, read: Masked, value: Tensor, args: Any, kwargs: Any) -> Masked:
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        keepdim = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        if dim is None or isinstance(dim, bool):
            return all_there(value)
        return Masked.of(value, read.whole.amax(dim, keepdim=keepdim))


def _product(name: str, function: Any, args: Any, value: Tensor) -> Masked:
    """A product is there where anything that is there was summed up."""
    if name == "scaled_dot_product_attention":
        q, _, v = (m.whole for m in args[:3])
        there = q.any(-1, keepdim=True) & _shared(v, q).any(-2, keepdim=True)
    else:
        there = function(*pick(args, lambda m: m.whole.double())) > 0
    return Masked.of(value, there)


def _shared(keys: Tensor, queries: Tensor) -> Tensor:
    """The mask of keys that several heads of queries share, for each of these."""
    return keys.repeat_interleave(queries.shape[-3] // keys.shape[-3], dim=-3)


def _is_elementwise(module: nn.Module) -> bool:
    return (
        type(module).__module__
        in (
            "torch.nn.modules.activation",
            "torch.nn.modules.dropout",
        )
        or isinstance(module, nn.Identity | nn.LocalResponseNorm)
        or type(module).__name__ == "DropPath"
    )


def all_there(value: Tensor) -> Masked:
    return Masked(value, torch.ones([1] * value.ndim, dtype=torch.bool))


def pooled(read: Masked, value: Tensor) -> Masked:
    """Channels of a pooled image are there if they were anywhere in the image."""
    axes = tuple(range(2, value.ndim))
    return Masked.of(value, read.whole.amax(axes, keepdim=True) if axes else read.mask)


def group_norm(
    x: Masked, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Masked:
    """Group normalisation with the statistics of the channels that are there."""
    shape, n = x.value.shape, len(x.value)
    inner = Masked(x.value.reshape(n, groups, -1), x.whole.reshape(n, groups, -1))
    out = standardised(inner, (-1,), eps).reshape(shape)
    affine = [1, -1, *[1] * (len(shape) - 2)]
    if weight is not None:
        out = out * weight.view(affine)
    if bias is not None:
        out = out + bias.view(affine)
    return Masked.of(out, x.mask)


def layer_norm(
    x: Masked, over: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Masked:
    """Layer normalisation with the statistics of the channels that are there."""
    over = (over,) if isinstance(over, int) else tuple(over)
    out = standardised(Masked(x.value, x.whole), tuple(range(-len(over), 0)), eps)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return Masked.of(out, x.mask)


def rms_norm(x: Masked, over: tuple[int, ...], weight: Tensor | None, eps: float | None) -> Masked:
    """RMS normalisation with the mean square of the channels that are there."""
    least = torch.finfo(x.value.dtype).eps if eps is None else eps
    axes = tuple(range(-len(tuple(over)), 0))
    out = standardised(Masked(x.value, x.whole), axes, least, centre=False)
    return Masked.of(out if weight is None else out * weight, x.mask)


def standardised(x: Masked, axes: tuple[int, ...], eps: float, centre: bool = True) -> Tensor:
    there = x.whole.to(x.value.dtype)
    count = there.sum(axes, keepdim=True).clamp(min=1)
    mean = (x.value * there).sum(axes, keepdim=True) / count * centre
    centred = (x.value - mean) * there
    return centred * ((centred**2).sum(axes, keepdim=True) / count + eps).rsqrt()


def pick(nested: Any, function: Any) -> Any:
    """`function` of every masked value in nested arguments."""
    return fx.node.map_aggregate(nested, lambda v: function(v) if isinstance(v, Masked) else v)


def values(nested: Any) -> Any:
    return pick(nested, lambda m: m.value)


def whole_number(masked: Masked) -> Tensor:
    """The mask in numbers; an index says where elements go and has none."""
    return masked.whole.double() if masked.value.is_floating_point() else masked.value


def _paired(value: Any, mask: Any) -> Any:
    if isinstance(value, Tensor):
        return Masked.of(value, mask > 0)
    if isinstance(value, tuple | list):
        return tuple(_paired(a, b) for a, b in zip(value, mask, strict=True))
    return value
