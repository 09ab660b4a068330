from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.training.evaluate import accuracy, evaluate


class Brightest(nn.Module):
    """Names the brightest of the image's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(x).mean((2, 3)) * 10


@pytest.fixture
def images():
    labels = torch.arange(30) % 3
    pixels = torch.zeros(30, 3, 2, 2, dtype=torch.uint8)
    pixels[torch.arange(30), labels] = 200
    labels = torch.where(torch.arange(30) < 6, (labels + 1) % 3, labels)  # six are mislabelled
    return Images(pixels, labels, Transform((0.0,) * 3, (1.0,) * 3))


@pytest.mark.parametrize("batch_size", [7, 30, 256])
def test_accuracy_and_loss_are_of_all_images(images, batch_size):
    score = evaluate(Brightest(), images, batch_size)
    assert score.value == pytest.approx(24 / 30) and score.images == 30
    right, wrong = (
        math.log(2 + math.exp(top)) - z for top, z in ((200 / 25.5,) * 2, (200 / 25.5, 0))
    )
    assert score.loss == pytest.approx((24 * right + 6 * wrong) / 30, rel=1e-4)
    assert accuracy(Brightest(), images) == score.value


def test_evaluation_leaves_the_network_as_it_was(images):
    network = nn.Sequential(nn.BatchNorm2d(3), Brightest()).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    evaluate(network, images)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
