"""VGG with batch norm and one linear layer, as used on CIFAR (Simonyan & Zisserman 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from gnnrl.networks.shape import Builder, Classifier, conv_bn
from gnnrl.shapes import Shape

WIDTHS = (64, 128, 256, 512, 512)


class Vgg(Classifier):
    """Five stages of 3x3 convolutions, each followed by a maximum over 2x2 pixels.

    repeats: convolutions per stage.
    """

    def __init__(self, num_classes: int, input_shape: Shape, repeats: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for width, repeat in zip(WIDTHS, repeats, strict=True):
            for _ in range(repeat):
                layers += [*conv_bn(channels, width, 3), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that 28 or 8 pixels suffice
        super().__init__(nn.Sequential(*layers), channels, num_classes)


NETWORKS: Mapping[str, Builder] = {
    "vgg13_bn": partial(Vgg, repeats=(2, 2, 2, 2, 2)),
    "vgg16_bn": partial(Vgg, repeats=(2, 2, 3, 3, 3)),
    "vgg19_bn": partial(Vgg, repeats=(2, 2, 4, 4, 4)),
}
