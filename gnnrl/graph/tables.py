"""Which rule stands for which operation.

An operation is known by the class of its module or by the name of its function or method; the
second column is the word that stands for it in the graph.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import fx, nn

from gnnrl.graph import layers, pointwise, rules
from gnnrl.graph.flow import module_of
from gnnrl.graph.nodes import operation_name
from gnnrl.graph.rules import Rule

_MODULES: tuple[tuple[tuple[type[nn.Module], ...], str, Rule], ...] = (
    ((nn.modules.conv._ConvNd,), "conv", layers.convolution_module),
    ((nn.Linear,), "linear", layers.linear_module),
    (
        (
            nn.modules.batchnorm._NormBase,
            nn.GroupNorm,
            nn.LayerNorm,
            *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
        ),
        "norm",
        layers.norm_module,
    ),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU), "softmax", pointwise.along_axis),
    ((nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.Softmax2d), "lrn", pointwise.across_channels),
    ((nn.MultiheadAttention,), "attention", rules.Refused("attention mixes all channels")),
    (
        (
            nn.Dropout,
            nn.modules.dropout._DropoutNd,
            nn.Identity,
        ),
        "identity",
        pointwise.elementwise,
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
        pointwise.spatial,
    ),
    ((nn.Upsample,), "resize", pointwise.spatial),
    (
        (
            nn.modules.padding._ReflectionPadNd,
            nn.modules.padding._ReplicationPadNd,
            nn.modules.padding._ConstantPadNd,
        ),
        "pad",
        pointwise.padding,
    ),
    (
        (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle),
        "reshape",
        pointwise.movement,
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
    "maximum minimum where float half bfloat16 double to type type_as "
    "lerp erf sign floor ceil round sin cos normalize zeros_like ones_like full_like masked_fill "
    "gt ge lt le eq ne logical_and logical_or logical_not nan_to_num"
)
_FUNCTIONS: tuple[tuple[str, str, Rule], ...] = (
    (
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        "conv",
        layers.convolution_function,
    ),
    ("linear", "linear", layers.linear_function),
    ("batch_norm instance_norm group_norm layer_norm rms_norm", "norm", layers.norm_function),
    ("add add_ iadd sub sub_ isub rsub", "add", pointwise.elementwise),
    ("mul mul_ imul div div_ truediv itruediv true_divide", "mul", pointwise.elementwise),
    (_ACTIVATIONS, "activation", pointwise.elementwise),
    (_ARITHMETIC, "arithmetic", pointwise.elementwise),
    ("contiguous clone detach", "identity", pointwise.copying),
    ("softmax log_softmax softmin glu cumsum", "softmax", pointwise.along_axis),
    ("local_response_norm", "lrn", pointwise.across_channels),
    (
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d lp_pool2d _max_pool2d boolean_dispatch",
        "pool",
        pointwise.spatial,
    ),
    ("interpolate upsample", "resize", pointwise.spatial),
    ("mean sum amax amin std var logsumexp", "pool", pointwise.reduction),
    ("max min", "pool", pointwise.extreme),
    ("expand_as view_as reshape_as", "reshape", pointwise.like),
    ("zeros ones new_zeros new_ones", "constant", pointwise.constant),
    ("stack", "cat", pointwise.stack),
    ("cat concat concatenate", "cat", pointwise.concatenation),
    ("pad", "pad", pointwise.padding),
    ("getitem", "slice", pointwise.pick),
    ("getattr", "slice", pointwise.named_part),
    (
        "view reshape flatten unflatten permute transpose swapaxes movedim unsqueeze squeeze "
        "t chunk split tensor_split unbind narrow select expand repeat tile "
        "repeat_interleave roll flip channel_shuffle native_channel_shuffle rot90 "
        "index_select pixel_shuffle pixel_unshuffle",
        "reshape",
        pointwise.movement,
    ),
    (
        "matmul bmm mm addmm einsum baddbmm dot scaled_dot_product_attention "
        "multi_head_attention_forward",
        "matmul",
        rules.Refused("it multiplies activations with each other"),
    ),
)
_TABLE = {
    name: (kind, rule) for names, kind, rule in reversed(_FUNCTIONS) for name in names.split()
}
_UNKNOWN = rules.Refused("there is no rule for it")
_LIBRARIES = ("torch", "torchvision", "_operator", "operator", "math", "builtins")


def look_up(node: fx.Node, protected: Collection[str] = ()) -> tuple[str, Rule]:
    """Kind and rule of an operation; unknown ones get the rule that refuses them.

    protected: modules that may be left as they are where no rule can read them.
    """
    kind, rule = _look_up(node)
    if isinstance(rule, rules.Refused) and node.op == "call_module" and node.target in protected:
        return "opaque", rules.opaque
    return kind, rule


def _look_up(node: fx.Node) -> tuple[str, Rule]:
    if node.op == "placeholder":
        return "input", rules.placeholder
    if node.op == "output":
        return "output", rules.output
    if node.op == "get_attr":
        return "parameter", rules.weights
    if node.meta.get("identity"):
        return "identity", pointwise.elementwise
    if node.op == "call_module":
        return _module(node)
    library = getattr(node.target, "__module__", None) or "torch"
    known = node.op == "call_method" or library.split(".")[0] in _LIBRARIES
    name = operation_name(node)
    if known and name in _TABLE:
        return _TABLE[name]
    return name, _UNKNOWN


def _module(node: fx.Node) -> tuple[str, Rule]:
    module = module_of(node)
    for classes, kind, rule in _MODULES:
        if isinstance(module, classes):
            return kind, rule
    if type(module).__module__ == "torch.nn.modules.activation":
        return "activation", layers.prelu if isinstance(module, nn.PReLU) else pointwise.elementwise
    return type(module).__name__, _UNKNOWN
