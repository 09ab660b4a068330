"""ShuffleNet v1 (Zhang et al. 2018, 3 groups) and v2 (Ma et al. 2018), for CIFAR and ImageNet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.networks.shape import (
    Builder,
    Shape,
    conv_bn,
    initialise,
    is_large,
    replace_first_conv,
)

GROUPS = 3
STEM = 24
STAGES = ((240, 4), (480, 8), (960, 4))  # Table 1 of Zhang et al. for 3 groups: width, units


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of [N, C, H, W] out to the groups in turn."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class Unit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1 (Figure 2 of Zhang et al.).

    With stride 2 the averaged input is concatenated instead of added.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int) -> None:
        super().__init__()
        middle = channels // 4
        new = channels - in_channels if stride == 2 else channels
        self.stride = stride
        self.conv1, self.bn1 = conv_bn(in_channels, middle, 1, groups=groups)
        self.conv2, self.bn2 = conv_bn(middle, middle, 3, stride, groups=middle)
        self.conv3, self.bn3 = conv_bn(middle, new, 1, groups=GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C, H / stride, W / stride]."""
        out = channel_shuffle(F.relu(self.bn1(self.conv1(x))), GROUPS)
        out = self.bn3(self.conv3(self.bn2(self.conv2(out))))
        if self.stride == 1:
            return F.relu(x + out)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), out], dim=1))


class ShuffleNetV1(nn.Module):
    """Three stages of shuffle units; small images keep their size in the stem."""

    def __init__(self, num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        large = is_large(input_shape)
        self.stem = nn.Sequential(*conv_bn(input_shape[0], STEM, 3, 2 if large else 1), nn.ReLU())
        if large:
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        channels, units = STEM, []
        for width, repeats in STAGES:
            for i in range(repeats):
                groups = 1 if channels == STEM else GROUPS  # 24 channels are too few to group
                units.append(Unit(channels, width, 2 if i == 0 else 1, groups))
                channels = width
        self.features = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes]."""
        return self.classifier(self.pool(self.features(self.stem(x))).flatten(1))


def shufflenet_v2(num_classes: int, input_shape: Shape) -> nn.Module:
    """Return torchvision's ShuffleNet v2 x1.0; small images keep their size in the stem."""
    from torchvision import models

    network = models.shufflenet_v2_x1_0(weights=None, num_classes=num_classes)
    large = is_large(input_shape)
    replace_first_conv(network, in_channels=input_shape[0], stride=2 if large else 1)
    if not large:
        network.maxpool = nn.Identity()
    return network


NETWORKS: Mapping[str, Builder] = {"shufflenet_v1": ShuffleNetV1, "shufflenet_v2": shufflenet_v2}
