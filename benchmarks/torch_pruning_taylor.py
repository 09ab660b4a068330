"""Torch-Pruning on a residual network: Taylor importance, global, scaled to what is asked."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.harness import Setting
from gnnrl.data.calibration import labelled_images
from gnnrl.errors import UserError

RIVAL = "torch-pruning"
STEP, IMAGES = 0.025, 1024
"""Of the ratios that are tried, and the labelled training images that give the gradients."""


def taylor(setting: Setting, ratio: float, seed: int) -> nn.Module:
    """Prune a fraction of the channels inside blocks, in one step."""
    import torch_pruning as tp

    network = copy.deepcopy(setting.network).eval()
    images, labels = labelled_images(setting.train, IMAGES, seed, torch.device("cpu"))
    layers = {n: m for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    pruner = tp.pruner.BasePruner(
        network,
        torch.zeros(1, *setting.graph.input_shape),
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=[m for n, m in layers.items() if ".conv1" not in n],
    )
    nn.functional.cross_entropy(network(images), labels).backward()
    pruner.step()
    network.zero_grad(set_to_none=True)
    return network.eval()


def lowest(setting: Setting, fits: Callable[[nn.Module], bool], seed: int) -> nn.Module:
    """Return the subnet of the lowest ratio that fits.  Raises UserError where none does."""
    for step in range(1, round(1 / STEP)):
        subnet = taylor(setting, STEP * step, seed)
        if fits(subnet):
            return subnet
    raise UserError(f"{RIVAL} does not meet the budget")
