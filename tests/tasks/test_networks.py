"""Segmentation networks: ours and torchvision's, cut, trained and measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.networks.build import build_network
from gnnrl.tasks.registry import build_task
from gnnrl.training.distillation import Distillation, Objective
from gnnrl.training.evaluate import evaluate
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe
from tests.cutting import assert_cut_is_exact, conditioned, randomise

CLASSES = 5
TASK = build_task("segmentation")
TORCHVISION = [f"torchvision/{name}" for name in models.list_models(module=models.segmentation)]


def images(shape: tuple[int, int, int], count: int = 4) -> Images:
    """Noise, with masks of noise."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *shape), generator=draw).byte()
    masks = torch.randint(CLASSES, (count, *shape[1:]), generator=draw).byte()
    return Images(pixels, masks, Transform((0.5,), (0.25,)).for_channels(shape[0]))


def network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(0)
    found = build_network(name, CLASSES, shape)
    return conditioned(randomise(found), torch.randn(2, *shape))


def assert_a_subnet_is_exact_learns_and_is_measured(name: str, shape: tuple[int, int, int]) -> None:
    dense = network(name, shape)
    cut = assert_cut_is_exact(dense, torch.randn(2, *shape), 0.5, seed=0, double=False)
    subnet, shown = cut.subnet, images(shape)
    before = evaluate(subnet, shown, 2, TASK)
    recipe = TrainingRecipe(epochs=1, batch_size=2, learning_rate=0.01, augment=False)
    taught = Objective(TASK, Distillation(dense, alpha=0.5))
    (row,) = train(subnet, shown, recipe, objective=taught).history
    assert 0 <= row["mean_iou"] <= 1 and row["loss"] > 0
    after = evaluate(subnet, shown, 2, TASK)
    assert before.loss != after.loss and 0 <= after.value <= 1


@pytest.mark.parametrize("name", ["unet_half", "unet_upsampling"])
def test_our_networks(name):
    assert_a_subnet_is_exact_learns_and_is_measured(name, (1, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_every_segmentation_network_of_torchvision(name):
    assert len(TORCHVISION) == 6
    assert_a_subnet_is_exact_learns_and_is_measured(name, (3, 64, 64))
