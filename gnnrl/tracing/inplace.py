"""Operations that overwrite what they read."""

from __future__ import annotations

import inspect
import operator

from torch import fx

_OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}


def stop_writing(traced: fx.GraphModule) -> None:
    """Make every operation leave what it reads as it was, in place.

    Where a network writes in place, it does so on a tensor that nothing else reads; once parts
    are gone, another tensor stands there.
    """
    for module in traced.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    for node in traced.graph.nodes:
        if node.op == "call_function":
            node.target = _OUT_OF_PLACE.get(node.target, node.target)
            _clear_argument(node)
        elif node.op == "call_method" and str(node.target).endswith("_"):
            node.target = str(node.target).rstrip("_")
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    traced.recompile()


def _clear_argument(node: fx.Node) -> None:
    """Clear `inplace` where it was passed by its position, as in `relu(x, True)`."""
    try:
        names = list(inspect.signature(node.target).parameters)
    except (TypeError, ValueError):  # a built-in function without a signature
        return
    if "inplace" in names and len(node.args) > names.index("inplace"):
        node.update_arg(names.index("inplace"), False)
