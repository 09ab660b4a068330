"""A small U-Net (Ronneberger et al. 2015) for segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from gnnrl.networks.shape import Builder, conv_bn, initialise
from gnnrl.shapes import Shape

WIDTHS = (16, 32, 64)


class UNet(nn.Module):
    """Blocks of two convolutions on halved and halved again images, and back up to the full size.

    On the way up, each block reads what the block of its size found on the way down, too.  Height
    and width of the images are multiples of 4.  Returns logits [N, num_classes, H, W].
    upsampling: enlarge by bilinear interpolation instead of up-convolutions.  scale: factor on the
    number of filters.
    """

    def __init__(
        self, num_classes: int, input_shape: Shape, upsampling: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        widths = [max(1, round(scale * width)) for width in WIDTHS]
        inputs = (input_shape[0], *widths)
        self.down = nn.ModuleList(_block(*pair) for pair in zip(inputs, widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]  # below, here
        self.enlarge = nn.ModuleList(_larger(*pair, upsampling) for pair in pairs)
        beside = [below if upsampling else here for below, here in pairs]
        self.up = nn.ModuleList(
            _block(other + here, here) for other, (_, here) in zip(beside, pairs, strict=True)
        )
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        initialise(self)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes, H, W]."""
        seen: list[Tensor] = []
        for block in self.down:
            x = block(self.pool(x) if seen else x)
            seen.append(x)
        for larger, block, beside in zip(self.enlarge, self.up, seen[-2::-1], strict=True):
            x = block(torch.cat([larger(x), beside], dim=1))
        return self.classifier(x)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers = [*conv_bn(inputs, outputs, 3), nn.ReLU(), *conv_bn(outputs, outputs, 3), nn.ReLU()]
    return nn.Sequential(*layers)


def _larger(inputs: int, outputs: int, upsampling: bool) -> nn.Module:
    if upsampling:
        return nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


NETWORKS: Mapping[str, Builder] = {
    "unet": UNet,
    "unet_half": partial(UNet, scale=1 / 2),
    "unet_upsampling": partial(UNet, upsampling=True),
}
