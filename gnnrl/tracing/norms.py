"""Batch norms that a network writes as a function, or by a subclass of its own, as modules.

Tracing looks into every class that is not PyTorch's own, so that of timm's `BatchNormAct2d`, or of
an empty subclass of `nn.BatchNorm2d`, the function is left.  What reads the traced network then
finds a norm of the same kind as all others, which keeps its mode and counts its batches.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

_KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_HELD = ("running_mean", "running_var", "weight", "bias")
_ARGUMENTS = ("input", *_HELD, "training", "momentum", "eps")


def norms_as_modules(traced: fx.GraphModule, network: nn.Module) -> None:
    """Call a module of PyTorch wherever `F.batch_norm` is called with what one module holds.

    network: what was traced.  Parameters and buffers keep their names.  A norm without running
    statistics stays a function, and so does one that never trains.
    """
    flags = [n for n in traced.graph.nodes if n.op == "get_attr" and n.target == "training"]
    for node in list(traced.graph.nodes):
        if node.target is not F.batch_norm:
            continue
        given = dict(zip(_ARGUMENTS, node.args, strict=False)) | node.kwargs
        owner = _owner(given)
        if owner is None or given.get("training") not in flags:
            continue
        parts = traced.get_submodule(owner)
        if not isinstance(parts, _BatchNorm):
            norm = _norm_of(network.get_submodule(owner), given)
            norm._modules.update(parts._modules)
            _replace(traced, owner, norm)
        node.op, node.target, node.args, node.kwargs = "call_module", owner, (given["input"],), {}
    for node in reversed(traced.graph.nodes):
        if node.op == "get_attr" and not node.users:
            traced.graph.erase_node(node)
    traced.recompile()


def _owner(given: dict[str, Any]) -> str | None:
    """The module that holds running statistics, scale and shift under their usual names."""
    owners = set()
    for name in _HELD:
        node = given.get(name)
        if node is None and name in ("weight", "bias"):
            continue
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        path, _, last = str(node.target).rpartition(".")
        owners.add(path if last == name else None)
    return owners.pop() if len(owners) == 1 else None


def _norm_of(held: nn.Module, given: dict[str, Any]) -> nn.Module:
    """A norm with the tensors and settings of a module that calls `F.batch_norm`."""
    kind = _KINDS[given["input"].meta["example"].dim()]
    momentum = getattr(held, "momentum", given.get("momentum", 0.1))
    mean = held._buffers["running_mean"]
    assert mean is not None
    norm = kind(len(mean), given.get("eps", 1e-5), momentum, affine=False)
    for name in ("weight", "bias"):
        norm.register_parameter(name, held._parameters.get(name))
    norm.affine = norm.weight is not None
    norm._buffers.update(held._buffers)
    return norm


def _replace(traced: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    traced.get_submodule(parent)._modules[name] = module


def keep_from_training(module: nn.Module) -> None:
    """Leave a module in evaluation mode, whatever mode the network around it is set to."""
    module.train(False)
    setattr(module, "train", partial(_stay, module))  # noqa: B010


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
