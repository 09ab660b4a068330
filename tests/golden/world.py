"""A network of three blocks and a few synthetic images, the same wherever they are made.

Nothing is trained: batch norm is measured in one pass and the head holds class means, so that
numbers differ between processors by rounding only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph

SHAPE, CLASSES = (3, 8, 8), 10
NARROW, WIDE = 16, 24
REWARD, TRAIN = 500, 240
"""Images; 500 reward images are one evaluation."""


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Net(nn.Module):
    """A stem, three blocks and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, NARROW, 3, padding=1)
        self.bn, self.relu = nn.BatchNorm2d(NARROW), nn.ReLU()
        self.block1 = Block(NARROW, NARROW)
        self.block2 = Block(NARROW, WIDE, stride=2)
        self.block3 = Block(WIDE, WIDE)
        self.head = nn.Linear(WIDE, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.block3(self.block2(self.block1(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@dataclass(frozen=True)
class World:
    """What a search is given."""

    network: Net
    graph: ComputationalGraph
    reward_images: Images
    train_images: Images


def world() -> World:
    """A copy that may be changed."""
    return copy.deepcopy(_world())


@cache
def _world() -> World:
    reward, train = images(REWARD, seed=1), images(TRAIN, seed=2)
    network = _fitted(Net(), train)
    return World(network, extract(network, torch.zeros(1, *SHAPE)), reward, train)


def images(count: int, seed: int) -> Images:
    """Images of ten patterns, hidden in noise."""
    patterns = _integers((CLASSES, *SHAPE), 256, seed=0)
    labels = _integers((count,), CLASSES, seed)
    noise = _integers((count, *SHAPE), 256, seed + 100)
    pixels = ((patterns[labels] + noise) // 2).to(torch.uint8)
    return Images(pixels, labels, Transform(mean=(0.5,) * 3, std=(0.25,) * 3))


def _integers(shape: tuple[int, ...], high: int, seed: int) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _fitted(network: Net, train: Images) -> Net:
    generator = torch.Generator().manual_seed(3)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            spread = 0.3 + torch.rand(layer.out_channels, 1, 1, 1, generator=generator)
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(spread * noise * (2 / layer.weight[0].numel()) ** 0.5)
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.copy_(0.5 + torch.rand(layer.num_features, generator=generator))
            layer.momentum = 1.0  # statistics of the one batch that passes
    x, labels = next(train.batches(len(train)))
    network.train().features(x)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    features = network.eval().features(x)
    means = torch.stack([features[labels == label].mean(0) for label in range(CLASSES)])
    network.head.weight.copy_(8 * means)
    network.head.bias.copy_(-4 * means.square().sum(1))
    return network
