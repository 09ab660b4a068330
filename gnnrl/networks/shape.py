"""What the builders share: the shape of an image and how it falls into the first layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from gnnrl.shapes import Shape

Builder: TypeAlias = Callable[[int, Shape], nn.Module]  # (num_classes, input_shape) -> network

LARGE = 96  # pixels: from here on the stem of the ImageNet networks, below that of CIFAR


def is_large(input_shape: Shape) -> bool:
    """Whether images are large enough for a stem which divides their side by four."""
    return min(input_shape[1:]) >= LARGE


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps the size (but for its stride) and its batch norm."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )
    return [conv, nn.BatchNorm2d(out_channels)]


class Classifier(nn.Module):
    """Features, their mean over all pixels, and one linear layer."""

    def __init__(self, features: nn.Sequential, channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes]."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def initialise(network: nn.Module) -> None:
    """Draw convolution and linear weights as He et al. 2015 do (fan-out for convolutions)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def replace_first_conv(network: nn.Module, **changes: object) -> None:
    """Put a convolution with other arguments in the place of the network's first one.

    changes: arguments of Conv2d that differ, as in_channels=1 or stride=1.
    """
    name, old = next(
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    )
    kept = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    arguments = {key: getattr(old, key) for key in kept} | changes
    new = nn.Conv2d(**arguments, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)
