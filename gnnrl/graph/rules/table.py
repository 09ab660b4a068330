"""Which rule stands for which operation.

An operation is known by the class of its module or by the name of its function or method; the
second column is its name in the graph, one of `gnnrl.graph.operations`.
"""

from __future__ import annotations

from torch import Tensor, fx, nn

from gnnrl.graph.rules import base, product, unweighted, weighted
from gnnrl.graph.rules.base import Rule
from gnnrl.tracing import joined
from gnnrl.tracing.fx_utils import module_of, operation_name

_MODULES: tuple[tuple[tuple[type[nn.Module], ...], str, Rule], ...] = (
    ((nn.modules.conv._ConvNd,), "conv", weighted.convolution_module),
    ((nn.Linear,), "linear", weighted.linear_module),
    (
        (
            nn.modules.batchnorm._NormBase,
            nn.GroupNorm,
            nn.LayerNorm,
            *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
        ),
        "norm",
        weighted.norm_module,
    ),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU), "softmax", unweighted.along_axis),
    ((nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.Softmax2d), "lrn", unweighted.across_channels),
    ((nn.Embedding,), "embedding", weighted.embedding),
    (
        (
            nn.Dropout,
            nn.modules.dropout._DropoutNd,
            nn.Identity,
        ),
        "identity",
        unweighted.elementwise,
    ),
    (
        (
            nn.modules.pooling._MaxPoolNd,
            nn.modules.pooling._AvgPoolNd,
            nn.modules.pooling._AdaptiveAvgPoolNd,
            nn.modules.pooling._AdaptiveMaxPoolNd,
            nn.modules.pooling._LPPoolNd,
        ),
        "pool",
        unweighted.spatial,
    ),
    ((nn.Upsample,), "resize", unweighted.spatial),
    (
        (
            nn.modules.padding._ReflectionPadNd,
            nn.modules.padding._ReplicationPadNd,
            nn.modules.padding._ConstantPadNd,
        ),
        "pad",
        unweighted.padding,
    ),
    (
        (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle),
        "reshape",
        unweighted.movement,
    ),
)

_ACTIVATIONS = (
    "relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu celu gelu silu mish hardswish "
    "hardsigmoid hardtanh sigmoid sigmoid_ tanh softplus softsign logsigmoid rrelu threshold "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout stochastic_depth "
    "hardswish_ silu_ hardshrink softshrink tanhshrink"
)
_ARITHMETIC = (
    "add add_ iadd sub sub_ isub rsub mul mul_ imul div div_ truediv itruediv true_divide pow "
    "square sqrt rsqrt exp log log1p abs neg reciprocal clamp clamp_ clamp_min clamp_max clip "
    "maximum minimum where "
    "lerp erf sign floor ceil round sin cos normalize zeros_like ones_like full_like masked_fill "
    "float_power remainder fmod floor_divide copysign xlogy "
    "gt ge lt le eq ne logical_and logical_or logical_not nan_to_num invert addcmul addcdiv "
    "and_ or_ xor bitwise_and bitwise_or bitwise_not"
)
_FUNCTIONS: tuple[tuple[str, str, Rule], ...] = (
    (
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        "conv",
        weighted.convolution_function,
    ),
    ("linear", "linear", weighted.linear_function),
    ("batch_norm instance_norm group_norm layer_norm rms_norm", "norm", weighted.norm_function),
    ("add add_ iadd sub sub_ isub rsub", "add", unweighted.elementwise),
    ("mul mul_ imul div div_ truediv itruediv true_divide", "mul", unweighted.elementwise),
    (_ACTIVATIONS, "activation", unweighted.elementwise),
    (_ARITHMETIC, "arithmetic", unweighted.elementwise),
    ("contiguous clone detach", "identity", unweighted.copying),
    ("float half bfloat16 double to type type_as", "arithmetic", unweighted.converted),
    ("softmax log_softmax softmin glu cumsum", "softmax", unweighted.along_axis),
    ("local_response_norm", "lrn", unweighted.across_channels),
    (
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d lp_pool2d _max_pool2d boolean_dispatch",
        "pool",
        unweighted.spatial,
    ),
    ("interpolate upsample", "resize", unweighted.spatial),
    ("grid_sample", "resize", unweighted.sampling),
    ("mean sum amax amin std var logsumexp", "pool", unweighted.reduction),
    ("norm vector_norm", "pool", unweighted.norm),
    ("max min", "pool", unweighted.extreme),
    ("expand_as view_as reshape_as", "reshape", unweighted.like),
    ("zeros ones new_zeros new_ones", "constant", unweighted.constant),
    ("stack", "cat", unweighted.stack),
    ("cat concat concatenate", "cat", unweighted.concatenation),
    ("pad", "pad", unweighted.padding),
    ("getitem", "slice", unweighted.pick),
    ("getattr", "slice", unweighted.named_part),
    (
        "view reshape flatten unflatten permute transpose swapaxes movedim unsqueeze squeeze "
        "t chunk split tensor_split unbind narrow select expand repeat tile "
        "repeat_interleave roll flip channel_shuffle native_channel_shuffle rot90 "
        "index_select pixel_shuffle pixel_unshuffle",
        "reshape",
        unweighted.movement,
    ),
    ("matmul bmm mm", "matmul", product.matmul),
    ("einsum", "matmul", product.einsum),
    ("scaled_dot_product_attention", "attention", product.attention),
    ("setitem", "write", unweighted.written),
)
_TABLE = {
    name: (kind, rule) for names, kind, rule in reversed(_FUNCTIONS) for name in names.split()
}
_SHELL: dict[object, tuple[str, Rule]] = {
    joined.taken: ("identity", unweighted.copying),
    joined.pooled: ("pool", unweighted.pooling_of_regions),
    joined.handed: ("opaque", base.left_whole),
    joined.finished: ("opaque", base.left_whole),
}
"""What joins the parts of a network whose own code is no graph."""
_UNKNOWN = base.Refused("there is no rule for it")
_LIBRARIES = ("torch", "torchvision", "_operator", "operator", "math", "builtins")


def add_rule(functions: str, operation: str, rule: Rule) -> None:
    """Give functions and methods, named with spaces between them, an operation and its rule."""
    _TABLE.update({name: (operation, rule) for name in functions.split()})


def look_up(node: fx.Node) -> tuple[str, Rule]:
    """Kind and rule of an operation; unknown ones get the rule that refuses them."""
    if node.op == "placeholder":
        return "input", base.placeholder
    if node.op == "output":
        return "output", base.output
    if node.op == "get_attr":
        return "parameter", base.weights
    if node.meta.get("identity"):
        return "identity", unweighted.elementwise
    if node.op == "call_module":
        return _module(node)
    if node.target in _SHELL:
        return _SHELL[node.target]
    library = getattr(node.target, "__module__", None) or "torch"
    known = node.op == "call_method" or library.split(".")[0] in _LIBRARIES
    name = operation_name(node)
    if known and name in _TABLE:
        return _TABLE[name]
    return name, _UNKNOWN


def _module(node: fx.Node) -> tuple[str, Rule]:
    module = module_of(node)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and not any(
        "weight" in held for held in (module._parameters, module._buffers)
    ):
        return type(module).__name__, base.Refused("its weight is computed, not a parameter")
    for classes, kind, rule in _MODULES:
        if isinstance(module, classes):
            return kind, rule
    if type(module).__module__ == "torch.nn.modules.activation":
        return "activation", weighted.prelu if isinstance(
            module, nn.PReLU
        ) else unweighted.elementwise
    return type(module).__name__, _UNKNOWN
