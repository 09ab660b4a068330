"""BasicCNN, the network of the early-compression experiments (four convolutions, 960 filters)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from gnnrl.errors import UserError
from gnnrl.shapes import Shape

WIDTHS = (64, 128, 256, 512)
STRIDES = (2, 1, 2, 1)


class BasicCNN(nn.Sequential):
    """Four times 3x3 convolution without padding, ReLU, dropout 0.3, batch norm; then a classifier.

    Returns logits [N, num_classes]. At 3x32x32 and ten classes: 42,421,952 flops, 1,634,826
    parameters.
    scale: factor on the number of filters.
    """

    def __init__(self, num_classes: int, input_shape: Shape, scale: float = 1.0) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        widths = [max(1, round(scale * filters)) for filters in WIDTHS]
        channels, height, width = input_shape
        for i, (filters, stride) in enumerate(zip(widths, STRIDES, strict=True), start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, filters, 3, stride=stride)
            layers[f"relu{i}"] = nn.ReLU()
            layers[f"dropout{i}"] = nn.Dropout(0.3)
            layers[f"bn{i}"] = nn.BatchNorm2d(filters)
            channels, height, width = filters, _convolved(height, stride), _convolved(width, stride)
        if min(height, width) < 1:
            raise UserError(
                f"basic_cnn cannot take images of {input_shape[1]}x{input_shape[2]} pixels: its "
                "convolutions have no padding, give it at least 19x19"
            )
        layers["flatten"] = nn.Flatten()
        layers["fc1"] = nn.Linear(channels * height * width, num_classes)
        super().__init__(layers)


def _convolved(size: int, stride: int) -> int:
    return (size - 3) // stride + 1
