"""Detectors: torchvision's, for images of any size, and a small SSD (Liu et al. 2016)."""

# num_classes: the background, class 0, included

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.networks.shape import Builder, conv_bn, initialise, replace_first_conv
from gnnrl.shapes import Shape

LEAST = 32  # pixels of a side
SCALES = (0.2, 0.35, 0.5)
"""Sides of anchors over the side of the image: of both feature maps, and one beyond."""


def names() -> list[str]:
    """Return the names of torchvision's detectors."""
    from torchvision import models

    return models.list_models(module=models.detection)


def torchvision_detector(name: str, num_classes: int, input_shape: Shape) -> nn.Module:
    """Return a detector of torchvision for normalised images of a shape, which it does not scale.

    It normalises nothing itself: the data set has done so.
    """
    from torchvision import models

    channels, height, width = input_shape
    sizes = {} if name.startswith("ssd") else {
        "min_size": min(height, width), "max_size": max(height, width)
    }  # fmt: skip
    network = models.get_model(
        name,
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
        **sizes,
    )
    if name.startswith("ssd"):
        network.transform.fixed_size = (width, height)
    if channels != 3:
        replace_first_conv(network, in_channels=channels)
    return network


def first_part(network: nn.Module) -> nn.Module:
    """Return the backbone of a detector: what follows depends on the images; others whole."""
    backbone = getattr(network, "backbone", None)
    return backbone if backbone is not None and hasattr(network, "transform") else network


class Pyramid(nn.Module):
    """Feature maps of a quarter and an eighth of the image's sides."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.stem = _block(channels, first, 2)
        self.quarter = nn.Sequential(_block(first, second, 2), _block(second, third))
        self.eighth = nn.Sequential(_block(third, fourth, 2), _block(fourth, fourth))
        self.out_channels = [third, fourth]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images [N, C, H, W] to feature maps by name."""
        quarter = self.quarter(self.stem(x))
        return OrderedDict(quarter=quarter, eighth=self.eighth(quarter))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU())


def ssd_small(num_classes: int, input_shape: Shape) -> nn.Module:
    """Return an SSD of five convolutions and two heads for small images, by torchvision's class."""
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD

    channels, height, width = input_shape
    if min(height, width) < LEAST:
        raise UserError(
            f"ssd_small takes images of at least {LEAST}x{LEAST} pixels, got {height}x{width}: "
            "raise network.input_shape"
        )
    pyramid = Pyramid(channels, (16, 32, 64, 64))
    initialise(pyramid)
    return SSD(
        pyramid,
        DefaultBoxGenerator([[2], [2]], scales=list(SCALES)),
        (width, height),
        num_classes,
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
    )


NETWORKS: Mapping[str, Builder] = {"ssd_small": ssd_small}
