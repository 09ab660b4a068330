"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), for CIFAR and ImageNet sizes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from gnnrl.networks.shape import (
    Builder,
    Classifier,
    Shape,
    conv_bn,
    is_large,
    replace_first_conv,
)

# Table 1 of Howard et al.: (filters, stride) of each depthwise separable convolution.
SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# Table 2 of Sandler et al., (expansion, filters, repeats, stride), the first stride 2 taken back.
SMALL_V2 = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


class MobileNetV1(Classifier):
    """A stem and thirteen depthwise separable convolutions.

    The stem halves large images and leaves small ones as they are.
    """

    def __init__(self, num_classes: int, input_shape: Shape) -> None:
        channels = 32
        stride = 2 if is_large(input_shape) else 1
        layers = [*conv_bn(input_shape[0], channels, 3, stride), nn.ReLU()]
        for width, stride in SEPARABLE:
            layers += [*conv_bn(channels, channels, 3, stride, groups=channels), nn.ReLU()]
            layers += [*conv_bn(channels, width, 1), nn.ReLU()]
            channels = width
        super().__init__(nn.Sequential(*layers), channels, num_classes)


def mobilenet_v2(num_classes: int, input_shape: Shape) -> nn.Module:
    """Return torchvision's MobileNet v2; small images are halved three times instead of five."""
    from torchvision import models

    large = is_large(input_shape)
    blocks = None if large else SMALL_V2
    network = models.MobileNetV2(num_classes=num_classes, inverted_residual_setting=blocks)
    replace_first_conv(network, in_channels=input_shape[0], stride=2 if large else 1)
    return network


NETWORKS: Mapping[str, Builder] = {"mobilenet_v1": MobileNetV1, "mobilenet_v2": mobilenet_v2}
