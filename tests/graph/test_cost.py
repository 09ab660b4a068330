"""Costs against numbers from the papers and against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from tests.cutting import flops_counted


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("resnet20", 40_551_040),
        ("resnet56", 125_485_696),
        ("resnet110", 252_887_680),
        ("basic_cnn", 42_421_952),
    ],
)
def test_cifar_networks_cost_what_is_published(name: str, flops: int) -> None:
    graph = extract(build_network(name), torch.zeros(1, 3, 32, 32))
    assert cost(graph).flops == flops


def test_basic_cnn_has_960_filters_and_its_parameters() -> None:
    network = build_network("basic_cnn")
    graph = extract(network, torch.zeros(1, 3, 32, 32))
    convolutions = [n for n in graph.layers.values() if n.operation == "conv"]
    assert sum(len(n.filters.units) for n in convolutions) == 960
    assert cost(graph).parameters == 1_634_826


@pytest.mark.parametrize(
    ("name", "gflops"),
    [("resnet18", 1.814), ("resnet50", 4.089), ("mobilenet_v2", 0.301), ("vgg16", 15.47)],
)
def test_imagenet_networks_cost_what_is_published(name: str, gflops: float) -> None:
    with torch.device("meta"):
        network = build_network(f"torchvision/{name}", 1000, (3, 224, 224))
    graph = extract(network, torch.zeros(1, 3, 224, 224))
    assert round(cost(graph).flops / 1e9, 3 if gflops < 10 else 2) == gflops
    assert cost(graph).parameters == sum(p.numel() for p in network.parameters())


class Odd(nn.Module):
    """Transposed, grouped, dilated, and a linear layer applied at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 8, 4, stride=2, groups=1)
        self.grouped = nn.ConvTranspose2d(8, 12, 3, groups=4, output_padding=1, stride=2)
        self.dilated = nn.Conv2d(12, 6, 3, dilation=3, groups=3)
        self.pixel = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dilated(self.grouped(self.up(x)))
        return self.pixel(self.pixel.bias.new_zeros(1) + x.permute(0, 2, 3, 1))


def test_costs_of_odd_layers_are_those_pytorch_counts() -> None:
    network, image = Odd(), torch.zeros(3, 3, 9, 7)
    assert cost(extract(network, image)).flops == flops_counted(network, image)


class AcrossImages(nn.Module):
    """Multiplies matrices whose rows are images: csatv2 does so, and losses of contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.head((x @ x.transpose(0, 1)).softmax(-1) @ x)


@pytest.mark.parametrize("images", [1, 3])
def test_what_is_multiplied_across_images_is_counted_for_one(images: int) -> None:
    network = AcrossImages()
    graph = extract(network, torch.rand(images, 6))
    assert cost(graph).flops == flops_counted(network, torch.rand(images, 6)) == 6 * 4 + 4 * 2 + 8


class Places(nn.Module):
    """An encoding of places, computed once for all images, as in XCiT."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.encode = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(2, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        height, width = x.shape[-2:]
        down = torch.arange(height).view(1, 1, -1, 1).repeat(1, 1, 1, width)
        across = torch.arange(width).view(1, 1, 1, -1).repeat(1, 1, height, 1)
        places = self.encode(torch.cat([down, across], dim=1).float())
        return self.head((x + places.repeat(x.shape[0], 1, 1, 1)).relu().mean((2, 3)))


def test_what_is_computed_once_for_all_images_is_counted_whole() -> None:
    network, image = Places().eval(), torch.zeros(1, 3, 8, 8)
    assert cost(extract(network, image)).flops == flops_counted(network, image)
