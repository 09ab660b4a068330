"""Operations that overwrite what they read."""

from __future__ import annotations

import inspect
import operator
from typing import Any

from torch import fx

_OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}


def stop_writing(traced: fx.GraphModule) -> None:
    """Make every operation leave its inputs unchanged; the network is changed in place.

    Where a network writes in place, it does so on a tensor that nothing else reads; once parts
    are removed, that may be another tensor.
    """
    for module in traced.modules():
        writing: Any = module
        if getattr(writing, "inplace", False):
            writing.inplace = False
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
        function: Any = node.target
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a built-in function without a signature
        return
    if "inplace" in names and len(node.args) > names.index("inplace"):
        node.update_arg(names.index("inplace"), False)
