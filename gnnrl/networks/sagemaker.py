"""The network of the SageMaker compression example: a pre-activation ResNet of five blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.networks.shape import initialise
from gnnrl.shapes import Shape

# (filters, stride, has a projection) of each block. A block without one has no shortcut at all.
BLOCKS = ((16, 2, True), (32, 2, True), (32, 1, False), (64, 2, True), (64, 1, False))


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice; what the projection sees is already activated."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, projected: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.projection = (
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False) if projected else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C, H / stride, W / stride]."""
        x = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(x))))
        return out if self.projection is None else out + self.projection(x)


class SageMaker5Block(nn.Module):
    """As the example builds it, which is not the ResNet-18 its text names.

    At 3x32x32 and ten classes 171,504 parameters in the example's own counting: four per
    channel of a norm, without the bias of the classifier.
    """

    def __init__(self, num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        channels = 16
        self.conv = nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        for width, stride, projected in BLOCKS:
            self.blocks.append(PreActivationBlock(channels, width, stride, projected=projected))
            channels = width
        self.bn = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes]."""
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        return self.dense(self.pool(x).flatten(1))
