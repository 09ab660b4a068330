"""VGG with batch norm and one linear layer, as used on CIFAR (Simonyan & Zisserman 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from gnnrl.networks.shape import Builder, conv_bn, initialise
from gnnrl.shapes import Shape

WIDTHS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """Five stages of 3x3 convolutions, each followed by a maximum over 2x2 pixels.

    repeats: convolutions per stage.
    """

    def __init__(self, num_classes: int, input_shape: Shape, repeats: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for width, repeat in zip(WIDTHS, repeats, strict=True):
            for _ in range(repeat):
                layers += [*conv_bn(channels, width, 3), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that 28 or 8 pixels suffice
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes]."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


NETWORKS: Mapping[str, Builder] = {
    "vgg16_bn": partial(Vgg, repeats=(2, 2, 3, 3, 3)),
    "vgg19_bn": partial(Vgg, repeats=(2, 2, 4, 4, 4)),
}
