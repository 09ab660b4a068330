"""A name becomes a network: one of ours, torchvision's, or the user's own function."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from gnnrl.errors import UserError, first_line
from gnnrl.networks import detectors, mobilenet, resnet, shufflenet, unet, vgg, vit
from gnnrl.networks.basic_cnn import BasicCNN
from gnnrl.networks.mlp import Perceptron
from gnnrl.networks.sagemaker import SageMaker5Block
from gnnrl.networks.shape import Builder, replace_first_conv
from gnnrl.registry import call, imported, is_own
from gnnrl.shapes import Shape

TORCHVISION = "torchvision/"

NETWORKS: Mapping[str, Builder] = {
    "basic_cnn": BasicCNN,
    "basic_cnn_quarter": partial(BasicCNN, scale=1 / 4),
    "basic_cnn_eighth": partial(BasicCNN, scale=1 / 8),
    "sagemaker_5block": SageMaker5Block,
    "mlp_300_100": Perceptron,
    **resnet.NETWORKS,
    **vgg.NETWORKS,
    **mobilenet.NETWORKS,
    **shufflenet.NETWORKS,
    **detectors.NETWORKS,
    **unet.NETWORKS,
    **vit.NETWORKS,
}


def build_network(name: str, num_classes: int = 10, input_shape: Shape = (3, 32, 32)) -> nn.Module:
    """Return a network with fresh weights that maps images [N, *input_shape] to logits, or a
    detector, whose classes include the background.

    name: a key of NETWORKS, "torchvision/<name>", or "package.module:function" (called with
    num_classes and input_shape where it takes them).
    """
    input_shape = _checked(num_classes, input_shape)
    if is_own(name):
        return _own(name, num_classes, input_shape)
    if name.startswith(TORCHVISION):
        network = _torchvision(name, num_classes, input_shape)
    elif name in NETWORKS:
        network = NETWORKS[name](num_classes, input_shape)
    else:
        raise UserError(f"there is no network {name!r}; {_close(name)}")
    _try(detectors.first_part(network), name, input_shape)
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
    known = {name: TORCHVISION + name for name in _known_to_torchvision()}
    known |= {name: name for name in NETWORKS}
    near = difflib.get_close_matches(name.removeprefix(TORCHVISION), known)
    if near:
        return f"did you mean {' or '.join(known[other] for other in near)}?"
    return f"known are {', '.join(NETWORKS)}, torchvision/<name> and package.module:function"


def _known_to_torchvision() -> list[str]:
    from torchvision import models

    rooms = (models, models.segmentation, models.detection)
    return [name for room in rooms for name in models.list_models(module=room)]


def _torchvision(name: str, num_classes: int, input_shape: Shape) -> nn.Module:
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    if short in detectors.names():
        return detectors.torchvision_detector(short, num_classes, input_shape)
    if short not in _known_to_torchvision():
        raise UserError(
            f"torchvision has no network {short!r} for classification, segmentation or detection; "
            f"{_close(name)}"
        )
    given: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if short in models.list_models(module=models.segmentation):
        given["weights_backbone"] = None
    with warnings.catch_warnings():  # two of them announce a change of their initial weights
        warnings.simplefilter("ignore", FutureWarning)
        network = models.get_model(short, **given)
    _drop_auxiliary_heads(network)
    if input_shape[0] != 3:
        replace_first_conv(network, in_channels=input_shape[0])
    return network


def _drop_auxiliary_heads(network: nn.Module) -> None:
    """Remove the classifiers which only a special loss would train: the output is one tensor."""
    if getattr(network, "aux_logits", False):
        network.aux_logits = False  # type: ignore[assignment]
        for child in [child for child, _ in network.named_children() if "aux" in child.lower()]:
            setattr(network, child, None)


def _own(name: str, num_classes: int, input_shape: Shape) -> nn.Module:
    builder = imported(name, "network")
    network = call(builder, name, num_classes=num_classes, input_shape=input_shape)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name} must return the network, a torch.nn.Module, got {type(network).__name__}"
        )
    return network


def _try(network: nn.Module, name: str, input_shape: Shape) -> None:
    """Refuse images the network cannot take, by shapes alone (nothing is computed)."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}
    training = network.training
    network.eval()
    try:
        image = torch.empty(1, *input_shape, device="meta")
        torch.func.functional_call(network, shapes, (image,))
    except Exception as error:  # any that a network raises: torchvision's asserts
        raise UserError(
            f"{name} cannot take images of shape {input_shape} ({first_line(error)}): set "
            "network.input_shape to one that it takes, often a larger one"
        ) from error
    finally:
        network.train(training)
