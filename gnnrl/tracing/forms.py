"""Other forms of the same operations, in which each can be cut by itself.

A cut network writes its sizes in its calls, adds a bias that its code has put together as a tensor
of its own, reads what was written in place under the name of the operation that wrote it, and
holds weights that were computed from parameters alone as parameters.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from gnnrl.tracing.fx_utils import attribute, operation_name

_FRESH = set(
    "add sub mul div truediv matmul clone cat stack zeros ones empty relu gelu silu sigmoid tanh "
    "softmax conv1d conv2d conv3d linear layer_norm batch_norm group_norm mean sum "
    "new_zeros new_ones new_empty zeros_like ones_like interpolate repeat_interleave".split()
)
"""Functions that give a tensor which nothing else holds."""
_OWNERS = (nn.modules.conv._ConvNd, nn.Linear, nn.LayerNorm, nn.modules.batchnorm._NormBase)
_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, F.linear)


def rewrite(network: nn.Module, graph: fx.Graph) -> None:
    """Bring a recorded graph into these forms, in place; shapes need not be known."""
    for node in list(graph.nodes):
        _sizes_here(network, node)
        if node.op == "call_method" and node.target in ("view_as", "reshape_as"):
            _reshaped(graph, node)
        _as_linear(network, graph, node)
    for node in list(graph.nodes):
        if node.target is F.linear:
            _bias_apart(graph, node)
    for node in list(graph.nodes):
        if node.target is operator.setitem:
            _added_apart(node)
        writes = node.op == "call_method" and str(node.target).endswith("_")
        if not node.users and (writes or node.target is operator.setitem):
            _result_of_writing(network, graph, node)


def _sizes_here(network: nn.Module, node: fx.Node) -> None:
    """Sizes of `nn.Unflatten` stand in the call, and no view demands a memory layout."""
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    node.meta.pop("is_wrapped", None)  # else the code of the traced network asks for the same
    if isinstance(module, nn.Unflatten) and isinstance(module.dim, int):
        node.op, node.target = "call_method", "unflatten"
        node.args = (node.args[0], module.dim, tuple(module.unflattened_size))
    elif node.op == "call_method" and node.target == "view":
        if not isinstance(node.args[1], torch.dtype):
            node.target = "reshape"


def _reshaped(graph: fx.Graph, node: fx.Node) -> None:
    """`x.view_as(y)`: to the sizes that y has."""
    with graph.inserting_before(node):
        size = _like(node, graph.call_function(getattr, (node.args[1], "shape")))
    node.target, node.args = "reshape", (node.args[0], size)


def _bias_apart(graph: fx.Graph, node: fx.Node) -> None:
    """A bias that is put together from several tensors is added by itself."""
    bias: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    if not isinstance(bias, fx.Node) or bias.op == "get_attr":
        return
    node.args = node.args[:2]
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "bias"}
    with graph.inserting_after(node):
        added = _like(node, graph.call_function(operator.add, (node, bias)))
    node.replace_all_uses_with(added, lambda user: user is not added)


def _added_apart(node: fx.Node) -> None:
    """`x[i] += y` writes x[i] + y into x[i]."""
    written, index, value = node.args
    if not isinstance(value, fx.Node) or value.target not in _PLAIN or list(value.users) != [node]:
        return
    part: Any = value.args[0]
    if _is(part, operator.getitem) and part.args == (written, index) and len(part.users) == 1:
        value.target = _PLAIN[value.target]


_PLAIN = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def _as_linear(network: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    """`x @ weight` and `addmm(bias, x, weight)` are the linear layer of the transposed weight."""
    name = operation_name(node) if node.op in ("call_function", "call_method") else ""
    if (name, len(node.args)) in (("matmul", 2), ("mm", 2)) and not node.kwargs:
        read, weight, bias = (*node.args, None)
    elif (name, len(node.args)) == ("addmm", 3) and not node.kwargs:
        bias, read, weight = node.args
    else:
        return
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return
    value = attribute(network, str(weight.target))
    if not isinstance(value, nn.Parameter) or value.ndim != 2:
        return
    with graph.inserting_before(node):
        transposed = _like(node, graph.call_method("t", (weight,)))
    node.op, node.target, node.args = "call_function", F.linear, (read, transposed, bias)


def _like(node: fx.Node, new: fx.Node) -> fx.Node:
    """A new operation that belongs to the module that another one belongs to."""
    if "nn_module_stack" in node.meta:
        new.meta["nn_module_stack"] = node.meta["nn_module_stack"]
    return new


def _result_of_writing(network: nn.Module, graph: fx.Graph, node: fx.Node) -> None:
    """What is read of a tensor after it was written in place is the result of writing.

    Only where all that reads the tensor's memory is known: it has one name, and the part of it
    that is written has no other one.
    """
    written: Any = node.args[0]
    part, cuts = None, _cuts(node.args[1]) if node.target is operator.setitem else []
    if _is(written, operator.getitem) and list(written.users) == [node]:
        part, cuts, written = written, _cuts(written.args[1]), written.args[0]
    if cuts is None or not isinstance(written, fx.Node) or not _is_fresh(network, written):
        return
    before = [u for u in written.users if u < node and u is not part]
    if any(not _gives_a_number(u) and not _is_fresh(network, u) for u in before):
        if not all(_is(u, operator.getitem) and _ends_before(u, node) for u in before):
            return
    if node.target is operator.setitem and not _is_moved_or_fresh(network, node.args[2]):
        return
    after = [u for u in written.users if node < u]
    if node.target is operator.setitem:
        value: Any = node.args[2]
        with graph.inserting_before(node):
            part = _like(node, graph.call_function(operator.getitem, (written, node.args[1])))
        node.op, node.target, node.args = "call_method", "expand_as", (value, part)
    elif node.target == "zero_":
        node.op, node.target, node.args = "call_function", torch.zeros_like, (node.args[0],)
    else:
        node.target = str(node.target).rstrip("_")
    made = _joined(graph, written, node, cuts)
    for user in after:
        if user is not node:
            user.replace_input_with(written, made)


def _joined(graph: fx.Graph, written: fx.Node, made: fx.Node, cuts: list[Any]) -> fx.Node:
    """What was written into a part of a tensor together with what stands around it."""
    where = made
    for number in reversed(range(len(cuts))):
        axis, cut = cuts[number]
        outer: list[Any] = [slice(None)] * axis
        for k, other in cuts[:number]:
            outer[k] = other
        parts = [made]
        for place, rest in ((0, slice(None, cut.start)), (1, slice(cut.stop, None))):
            if (cut.start, cut.stop)[place] not in (None, 0):
                with graph.inserting_after(where):
                    where = graph.call_function(operator.getitem, (written, (*outer, rest)))
                parts.insert(place * len(parts), _like(made, where))
        with graph.inserting_after(where):
            where = _like(made, graph.call_function(torch.cat, (parts, axis)))
        made = where
    return made


def _cuts(index: Any) -> list[tuple[int, slice]] | None:
    """The axes that an index takes a part of; None where it is more than a slice of each."""
    indices = list(index) if isinstance(index, tuple) else [index]
    if not all(isinstance(i, slice) and i.step is None for i in indices):
        return None
    return [
        (k, i) for k, i in enumerate(indices) if (i.start, i.stop) not in ((None, None), (0, None))
    ]


def _ends_before(read: fx.Node, node: fx.Node) -> bool:
    """Whether nothing reads a part, nor what was moved of it, after a tensor was written."""
    moved = {"view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "flatten"}
    return all(
        user < node
        and (operation_name(user) not in moved or _ends_before(user, node))
        and not str(user.target).endswith("_")
        for user in read.users
    )


def _is_moved_or_fresh(network: nn.Module, value: Any) -> bool:
    """Whether a value is known to be a tensor."""
    if not isinstance(value, fx.Node):
        return False
    known = "view", "reshape", "permute", "transpose", "contiguous"
    return operation_name(value) in known or _is_fresh(network, value)


def _is(node: Any, function: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is function


def _gives_a_number(node: fx.Node) -> bool:
    return (node.op == "call_method" and node.target in ("size", "numel", "dim")) or (
        node.target is getattr
    )


def _is_fresh(network: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module, read = network.get_submodule(str(node.target)), node.all_input_nodes[0]
        if isinstance(module, nn.Identity):
            return len(read.users) == 1 and _is_fresh(network, read)
        return isinstance(module, _OWNERS)
    if node.op not in ("call_function", "call_method") or node.kwargs.get("inplace"):
        return False
    return operation_name(node) in _FRESH


def sizes_one_by_one(graph: fx.Graph) -> None:
    """Sizes that were put together beforehand (`x.view(x.shape[:-1] + (heads, width))`), so that
    each can be rewritten; shapes must be known."""
    for node in graph.nodes:
        size = node.args[1] if node.target in ("reshape", "expand") and len(node.args) > 1 else None
        if isinstance(size, fx.Node) and isinstance(size.meta["example"], tuple):
            with graph.inserting_before(node):
                parts = [graph.call_function(operator.getitem, (size, k))
                         for k in range(len(size.meta["example"]))]  # fmt: skip
            for part, value in zip(parts, size.meta["example"], strict=True):
                part.meta |= {"example": value, "follows": size.meta["follows"]}
            node.update_arg(1, tuple(parts))


def weights_as_parameters(traced: fx.GraphModule) -> None:
    """A weight that is computed from parameters alone becomes the parameter that it is now.

    It takes the name of the first parameter that it comes from: of one that its layer standardises,
    for instance.  Examples must be known.
    """
    graph = traced.graph
    for node in list(graph.nodes):
        weight: Any = node.args[1] if node.target in _CONVOLUTIONS and len(node.args) > 1 else None
        if not isinstance(weight, fx.Node) or weight.op == "get_attr":
            continue
        steps = _made_of(weight)
        source = next((n for n in steps or () if n.op == "get_attr"), None)
        if steps is None or source is None or any(user not in steps for user in source.users):
            continue
        values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for step in steps:
                values[step] = _value(traced, step, values)
        owner, _, name = str(source.target).rpartition(".")
        trained = isinstance(attribute(traced, str(source.target)), nn.Parameter)
        made = nn.Parameter(values[weight].detach().clone().contiguous(), trained)
        with graph.inserting_before(node):
            held = _like(node, graph.get_attr(str(source.target)))
        held.meta |= {"example": weight.meta["example"], "follows": set()}
        node.replace_input_with(weight, held)
        _erase(traced, steps)
        setattr(traced.get_submodule(owner), name, made)
    traced.recompile()


def _erase(traced: fx.GraphModule, steps: list[fx.Node]) -> None:
    """Erase operations that nothing reads any more, and the parameters that only they read."""
    for step in reversed(steps):
        if not step.users:
            traced.graph.erase_node(step)
    left = {str(n.target) for n in traced.graph.nodes if n.op == "get_attr"}
    for step in steps:
        if step.op == "get_attr" and str(step.target) not in left:
            owner, _, name = str(step.target).rpartition(".")
            delattr(traced.get_submodule(owner), name)


def _made_of(weight: fx.Node) -> list[fx.Node] | None:
    """The operations from parameters to a weight, in order; None where it follows more."""
    found: dict[fx.Node, None] = {}
    waiting = [weight]
    while waiting:
        node = waiting.pop()
        if node.op == "get_attr" and node.target != "training":
            found[node] = None
        elif node.op in ("call_function", "call_method") and "rand" not in operation_name(node):
            found[node] = None
            waiting += [n for n in node.all_input_nodes if n not in found]
        else:
            return None
    return sorted(found)


def _value(traced: nn.Module, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node.op == "get_attr":
        return attribute(traced, str(node.target))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Any = node.target
    return function(*args, **kwargs)
