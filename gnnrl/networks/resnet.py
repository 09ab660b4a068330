"""Residual networks for small images: He et al. 2016, section 4.2, and ResNet-18/34/50."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.networks.shape import Builder, conv_bn, replace_first_conv
from gnnrl.shapes import Shape

WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, the new channels zero, half of them on either side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, ceil(H / 2), ceil(W / 2)]."""
        return F.pad(x[:, :, ::2, ::2], self.padding)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, projected: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, 3, stride)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 and projected:
            self.shortcut = nn.Sequential(*conv_bn(in_channels, channels, 1, stride))
        elif stride != 1:
            self.shortcut = PaddedShortcut(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of `depth` // 6 blocks with 16, 32 and 64 channels.

    projected: shortcuts by 1x1 convolutions where the width changes (option B), else option A.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self, num_classes: int, input_shape: Shape, depth: int, *, projected: bool
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(input_shape[0], WIDTHS[0], 3)
        blocks, channels = (depth - 2) // 6, WIDTHS[0]
        for stage, width in enumerate(WIDTHS, start=1):
            layer = nn.Sequential()
            for i in range(blocks):
                stride = 2 if i == 0 and stage > 1 else 1
                layer.append(Block(channels, width, stride, projected=projected))
                channels = width
            self.add_module(f"layer{stage}", layer)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def resnet_with_cifar_stem(num_classes: int, input_shape: Shape, name: str) -> nn.Module:
    """Return torchvision's ResNet with a 3x3 stem of stride 1 and no pooling behind it."""
    from torchvision import models

    network = models.get_model(name, weights=None, num_classes=num_classes)
    replace_first_conv(network, in_channels=input_shape[0], kernel_size=3, stride=1, padding=1)
    network.maxpool = nn.Identity()
    return network


NETWORKS: Mapping[str, Builder] = {
    **{
        f"resnet{depth}{suffix}": partial(CifarResNet, depth=depth, projected=bool(suffix))
        for depth in (20, 32, 44, 56, 110)
        for suffix in ("", "b")
    },
    **{
        f"{name}_cifar": partial(resnet_with_cifar_stem, name=name)
        for name in ("resnet18", "resnet34", "resnet50")
    },
}
