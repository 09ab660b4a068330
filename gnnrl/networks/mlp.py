"""LeNet-300-100, the perceptron of the lottery-ticket and early-compression experiments."""

from __future__ import annotations

import math

from torch import nn

from gnnrl.shapes import Shape

HIDDEN = (300, 100)


class Perceptron(nn.Sequential):
    """Two hidden layers of 300 and 100 units without biases; logits [N, num_classes].

    At 1x28x28 and ten classes 266,200 weights.
    """

    def __init__(self, num_classes: int, input_shape: Shape) -> None:
        super().__init__()
        widths = (math.prod(input_shape), *HIDDEN, num_classes)
        self.add_module("flatten", nn.Flatten())
        for number in range(1, len(widths)):
            inputs, outputs = widths[number - 1 : number + 1]
            self.add_module(f"fc{number}", nn.Linear(inputs, outputs, bias=False))
            if number < len(widths) - 1:
                self.add_module(f"relu{number}", nn.ReLU())
