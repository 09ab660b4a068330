"""A name becomes a network: one of ours, torchvision's, or the user's own function."""

from __future__ import annotations

import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn

from gnnrl.errors import UserError
from gnnrl.networks import mobilenet, resnet, shufflenet, vgg
from gnnrl.networks.basic_cnn import BasicCNN
from gnnrl.networks.sagemaker import SageMaker5Block
from gnnrl.networks.shape import Builder, Shape, replace_first_conv

TORCHVISION = "torchvision/"

NETWORKS: Mapping[str, Builder] = {
    "basic_cnn": BasicCNN,
    "sagemaker_5block": SageMaker5Block,
    **resnet.NETWORKS,
    **vgg.NETWORKS,
    **mobilenet.NETWORKS,
    **shufflenet.NETWORKS,
}


def build_network(name: str, num_classes: int = 10, input_shape: Shape = (3, 32, 32)) -> nn.Module:
    """Return a network with fresh weights that maps images [N, *input_shape] to logits.

    name: a key of NETWORKS, "torchvision/<name>", or "package.module:function" (called with
    num_classes and input_shape where it takes them).
    """
    input_shape = _checked(num_classes, input_shape)
    if ":" in name:
        return _own(name, num_classes, input_shape)
    if name.startswith(TORCHVISION):
        network = _torchvision(name, num_classes, input_shape)
    elif name in NETWORKS:
        network = NETWORKS[name](num_classes, input_shape)
    else:
        raise UserError(f"there is no network {name!r}; {_close(name)}")
    _try(network, name, input_shape)
    return network


def _checked(num_classes: int, input_shape: Shape) -> Shape:
    shape = tuple(input_shape)
    if num_classes < 1 or len(shape) != 3 or min(shape) < 1:
        raise UserError(
            f"a network needs at least one class and an input shape (channels, height, width), "
            f"got {num_classes} classes and {shape}"
        )
    return shape


def _close(name: str) -> str:
    """Return a hint: names like the wrong one, or all of them."""
    from torchvision import models

    known = [*NETWORKS, *(TORCHVISION + other for other in models.list_models(module=models))]
    close = difflib.get_close_matches(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(NETWORKS)}, torchvision/<name> and package.module:function"


def _torchvision(name: str, num_classes: int, input_shape: Shape) -> nn.Module:
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    if short not in models.list_models(module=models):
        raise UserError(f"torchvision has no classification network {short!r}; {_close(name)}")
    with warnings.catch_warnings():  # two of them announce a change of their initial weights
        warnings.simplefilter("ignore", FutureWarning)
        network = models.get_model(short, weights=None, num_classes=num_classes)
    _drop_auxiliary_heads(network)
    if input_shape[0] != 3:
        replace_first_conv(network, in_channels=input_shape[0])
    return network


def _drop_auxiliary_heads(network: nn.Module) -> None:
    """Remove the classifiers which only a special loss would train: the output is one tensor."""
    if getattr(network, "aux_logits", False):
        network.aux_logits = False
        for child in [child for child, _ in network.named_children() if "aux" in child.lower()]:
            setattr(network, child, None)


def _own(name: str, num_classes: int, input_shape: Shape) -> nn.Module:
    function = _imported(name)
    offered = {"num_classes": num_classes, "input_shape": input_shape}
    try:
        signature = inspect.signature(function)
        taken = signature.parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
            offered = {key: offered[key] for key in offered if key in signature.parameters}
        signature.bind(**offered)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} cannot be called ({error}): expected a function of num_classes and "
            "input_shape, or of neither"
        ) from error
    network = function(**offered)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name} must return the network, a torch.nn.Module, got {type(network).__name__}"
        )
    return network


def _imported(name: str) -> Callable[..., object]:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"cannot import {module_name!r} for the network {name!r} ({error}): is it installed, "
            "or below the folder you run in?"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"module {module_name!r} has no function {function_name!r} (network {name!r}); "
            "expected package.module:function"
        )
    return function


def _try(network: nn.Module, name: str, input_shape: Shape) -> None:
    """Refuse images the network cannot take, by shapes alone (nothing is computed)."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}
    training = network.training
    network.eval()
    try:
        image = torch.empty(1, *input_shape, device="meta")
        torch.func.functional_call(network, shapes, (image,))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name} cannot take images of shape {input_shape} ({reason}): give larger ones"
        ) from error
    finally:
        network.train(training)
