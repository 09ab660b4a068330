"""Small networks of eight families, with depths and widths drawn by a number.

A network is named `zoo.networks:FAMILY_NUMBER`, such as `zoo.networks:resnet_a_1`, for
`network.name` of params.yaml.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.networks.resnet import Block
from gnnrl.networks.shape import Classifier, conv_bn
from gnnrl.networks.shufflenet import channel_shuffle
from gnnrl.shapes import Shape

Stages = Sequence[tuple[int, int]]
"""Width and number of blocks of each stage; every stage but the first halves the images."""


def plain(stages: Stages, channels: int) -> list[nn.Module]:
    """Return convolutions, the first of a stage with stride 2."""
    layers: list[nn.Module] = []
    for width, stride in _blocks(stages):
        layers += [*conv_bn(channels, width, 3, stride), nn.ReLU()]
        channels = width
    return layers


def vgg(stages: Stages, channels: int) -> list[nn.Module]:
    """Return convolutions with a maximum over 2x2 pixels between stages."""
    layers: list[nn.Module] = []
    for width, stride in _blocks(stages):
        layers += [nn.MaxPool2d(2)] if stride == 2 else []
        layers += [*conv_bn(channels, width, 3), nn.ReLU()]
        channels = width
    return layers


def resnet(stages: Stages, channels: int, projected: bool) -> list[nn.Module]:
    """Return residual blocks; projected: option B, else A, which needs widths that double."""
    layers: list[nn.Module] = [*conv_bn(channels, stages[0][0], 3), nn.ReLU()]
    channels = stages[0][0]
    for width, stride in _blocks(stages):
        layers.append(Block(channels, width, stride, projected=projected))
        channels = width
    return layers


class Dense(nn.Module):
    """Norm, ReLU, convolution; its output is appended to its input (Huang et al. 2017)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + growth, H, W]."""
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], dim=1)


def densenet(stages: Stages, channels: int) -> list[nn.Module]:
    """Return dense blocks with a growth of half the width of the first stage."""
    width, growth = stages[0][0], stages[0][0] // 2
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for stage, (_, depth) in enumerate(stages):
        if stage:
            half = width // 2
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, half, 1, bias=False)]
            layers.append(nn.AvgPool2d(2))
            width = half
        for _ in range(2 * depth):
            layers.append(Dense(width, growth))
            width += growth
    return [*layers, nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, stages[-1][0], 1)]


def _chain(stages: Stages, block: Callable[[int, int, int], nn.Module]) -> list[nn.Module]:
    """Return blocks made of channels, width and stride, each reading the one before."""
    channels, layers = stages[0][0], []
    for width, stride in _blocks(stages):
        layers.append(block(channels, width, stride))
        channels = width
    return layers


def mobilenet_v1(stages: Stages, channels: int) -> list[nn.Module]:
    """Return depthwise separable convolutions."""
    layers: list[nn.Module] = [*conv_bn(channels, stages[0][0], 3), nn.ReLU()]
    channels = stages[0][0]
    for width, stride in _blocks(stages):
        layers += [*conv_bn(channels, channels, 3, stride, groups=channels), nn.ReLU()]
        layers += [*conv_bn(channels, width, 1), nn.ReLU()]
        channels = width
    return layers


class Inverted(nn.Module):
    """Expansion by three, depthwise convolution, projection; added where shapes allow."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        middle = 3 * channels
        self.layers = nn.Sequential(
            *conv_bn(channels, middle, 1), nn.ReLU6(),
            *conv_bn(middle, middle, 3, stride, groups=middle), nn.ReLU6(),
            *conv_bn(middle, width, 1),
        )  # fmt: skip
        self.added = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C, H / stride, W / stride]."""
        return x + self.layers(x) if self.added else self.layers(x)


def mobilenet_v2(stages: Stages, channels: int) -> list[nn.Module]:
    """Return inverted residual blocks."""
    return [*conv_bn(channels, stages[0][0], 3), nn.ReLU6(), *_chain(stages, Inverted)]


class Shuffled(nn.Module):
    """Half of the channels through a branch, both halves shuffled (Ma et al. 2018)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.split = stride == 1 and channels == width
        half, before = width // 2, channels // 2 if self.split else channels
        self.branch = nn.Sequential(
            *conv_bn(before, half, 1), nn.ReLU(),
            *conv_bn(half, half, 3, stride, groups=half),
            *conv_bn(half, half, 1), nn.ReLU(),
        )  # fmt: skip
        self.other = nn.Sequential() if self.split else nn.Sequential(
            *conv_bn(before, before, 3, stride, groups=before),
            *conv_bn(before, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C, H / stride, W / stride]."""
        one, two = x.chunk(2, dim=1) if self.split else (x, x)
        return channel_shuffle(torch.cat([self.other(one), self.branch(two)], dim=1), 2)


def shufflenet(stages: Stages, channels: int) -> list[nn.Module]:
    """Return units of ShuffleNet v2."""
    return [*conv_bn(channels, stages[0][0], 3), nn.ReLU(), *_chain(stages, Shuffled)]


FAMILIES: dict[str, Callable[[Stages, int], list[nn.Module]]] = {
    "plain": plain,
    "vgg": vgg,
    "resnet_a": partial(resnet, projected=False),
    "resnet_b": partial(resnet, projected=True),
    "densenet": densenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "shufflenet": shufflenet,
}
WIDER = {"mobilenet_v1": 2, "shufflenet": 2}
"""Factor on the widths of families whose convolutions are cheap."""


def family(name: str) -> str:
    """Return the family of a network, such as resnet_a of resnet_a_1."""
    return name.rpartition("_")[0]


def drawn(name: str) -> Stages:
    """Return the depths and widths that belong to a name."""
    rng = random.Random(name)
    width = rng.choice((10, 12, 14, 16, 20)) * WIDER.get(family(name), 1)
    return [(width * 2**stage, rng.choice((1, 2, 3))) for stage in range(3)]


def build(name: str, num_classes: int, input_shape: Shape) -> nn.Module:
    """Return a network with fresh weights."""
    stages = drawn(name)
    layers = FAMILIES[family(name)](stages, input_shape[0])
    return Classifier(nn.Sequential(*layers), stages[-1][0], num_classes)


def __getattr__(name: str) -> Callable[[int, Shape], nn.Module]:
    """Return the builder of a network by its name."""
    start, _, number = name.rpartition("_")
    if start not in FAMILIES or not number.isdigit():
        raise AttributeError(f"module {__name__!r} has no network {name!r}")

    def builder(num_classes: int, input_shape: Shape) -> nn.Module:
        return build(name, num_classes, input_shape)

    return builder


def _blocks(stages: Stages) -> list[tuple[int, int]]:
    """Width and stride of every block."""
    return [
        (width, 2 if stage and not i else 1)
        for stage, (width, depth) in enumerate(stages)
        for i in range(depth)
    ]
