"""Which rule stands for which operation.

An operation is known by the class of its module or by the name of its function or method; the
second column is the word that stands for it in the graph.
"""

from __future__ import annotations

from torch import fx, nn

from gnnrl.graph import rules
from gnnrl.graph.rules import Rule
from gnnrl.graph.trace import operation_name

_MODULES: tuple[tuple[tuple[type[nn.Module], ...], str, Rule], ...] = (
    ((nn.modules.conv._ConvNd,), "conv", rules.convolution_module),
    ((nn.Linear,), "linear", rules.linear_module),
    (
        (
            nn.modules.batchnorm._NormBase,
            nn.GroupNorm,
            nn.LayerNorm,
            *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
        ),
        "norm",
        rules.norm_module,
    ),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU), "softmax", rules.along_axis),
    ((nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.Softmax2d), "lrn", rules.across_channels),
    ((nn.MultiheadAttention,), "attention", rules.refused("attention mixes all channels")),
    (
        (
            nn.Dropout,
            nn.modules.dropout._DropoutNd,
            nn.Identity,
        ),
        "identity",
        rules.elementwise,
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
        rules.spatial,
    ),
    ((nn.Upsample,), "resize", rules.spatial),
    (
        (
            nn.modules.padding._ReflectionPadNd,
            nn.modules.padding._ReplicationPadNd,
            nn.modules.padding._ConstantPadNd,
        ),
        "pad",
        rules.padding,
    ),
    ((nn.Flatten, nn.Unflatten, nn.ChannelShuffle), "reshape", rules.movement),
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
    "addcmul lerp erf sign relu6 fake_quantize requires_grad_ dequantize"
)
_FUNCTIONS: tuple[tuple[str, str, Rule], ...] = (
    (
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        "conv",
        rules.convolution_function,
    ),
    ("linear", "linear", rules.linear_function),
    ("batch_norm instance_norm group_norm layer_norm rms_norm", "norm", rules.norm_function),
    ("add add_ iadd sub sub_ isub rsub", "add", rules.elementwise),
    ("mul mul_ imul div div_ truediv itruediv true_divide", "mul", rules.elementwise),
    (_ACTIVATIONS, "activation", rules.elementwise),
    (_ARITHMETIC, "arithmetic", rules.elementwise),
    ("contiguous clone detach", "identity", rules.copying),
    ("softmax log_softmax softmin glu cumsum", "softmax", rules.along_axis),
    ("local_response_norm", "lrn", rules.across_channels),
    (
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d lp_pool2d _max_pool2d boolean_dispatch",
        "pool",
        rules.spatial,
    ),
    ("interpolate upsample", "resize", rules.spatial),
    ("mean sum amax amin std var logsumexp", "pool", rules.reduction),
    ("cat concat concatenate", "cat", rules.concatenation),
    ("pad", "pad", rules.padding),
    ("getitem", "slice", rules.pick),
    (
        "view reshape flatten unflatten permute transpose swapaxes movedim unsqueeze squeeze "
        "t chunk split tensor_split unbind narrow select expand expand_as repeat tile "
        "repeat_interleave roll flip channel_shuffle native_channel_shuffle rot90 view_as "
        "reshape_as index_select",
        "reshape",
        rules.movement,
    ),
    (
        "matmul bmm mm addmm einsum baddbmm dot scaled_dot_product_attention "
        "multi_head_attention_forward",
        "matmul",
        rules.refused("it multiplies activations with each other"),
    ),
)
_TABLE = {name: (kind, rule) for names, kind, rule in reversed(_FUNCTIONS) for name in names.split()}
_LIBRARIES = ("torch", "torchvision", "_operator", "operator", "math", "builtins")


def look_up(node: fx.Node) -> tuple[str, Rule]:
    """Kind and rule of an operation; unknown ones get the rule that refuses them."""
    if node.op == "placeholder":
        return "input", rules.placeholder
    if node.op == "output":
        return "output", rules.output
    if node.op == "get_attr":
        return "parameter", rules.weights
    if node.op == "call_module":
        return _module(node)
    library = getattr(node.target, "__module__", None) or "torch"
    known = node.op == "call_method" or library.split(".")[0] in _LIBRARIES
    name = operation_name(node)
    if known and name in _TABLE:
        return _TABLE[name]
    return name, rules.refused("there is no rule for it")


def _module(node: fx.Node) -> tuple[str, Rule]:
    module = node.graph.owning_module.get_submodule(str(node.target))
    for classes, kind, rule in _MODULES:
        if isinstance(module, classes):
            return kind, rule
    if type(module).__module__ == "torch.nn.modules.activation":
        return "activation", rules.prelu if isinstance(module, nn.PReLU) else rules.elementwise
    if next(module.children(), None) is not None or type(module).forward is nn.Module.forward:
        return "opaque", rules.opaque
    return type(module).__name__, rules.refused("there is no rule for it")
