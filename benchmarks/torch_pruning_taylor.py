"""Torch-Pruning on a residual network: Taylor importance, global, scaled to what is asked."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.harness import Setting
from gnnrl.data.calibration import labelled_images
from gnnrl.errors import UserError
from gnnrl.runtime import device

RIVAL = "torch-pruning"
STEP, IMAGES, BATCH = 0.025, 1024, 256
"""Of the ratios that are tried; the labelled training images that give the gradients, and how many
of them pass at once."""


def taylor(setting: Setting, ratio: float, seed: int) -> nn.Module:
    """Prune a fraction of the channels inside blocks, in one step."""
    import torch_pruning as tp

    network = copy.deepcopy(setting.network).eval()
    images, labels = labelled_images(setting.train, IMAGES, seed, device())
    layers = {n: m for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    pruner = tp.pruner.BasePruner(
        network,
        torch.zeros(1, *setting.graph.input_shape, device=device()),
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=[m for n, m in layers.items() if ".conv1" not in n],
    )
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        (nn.functional.cross_entropy(network(x), y) * (len(x) / len(images))).backward()
    pruner.step()
    network.zero_grad(set_to_none=True)
    return network.eval()


def lowest(setting: Setting, fits: Callable[[nn.Module], bool], seed: int) -> nn.Module:
    """Return the subnet of the lowest ratio that fits.  Raises UserError where none does."""
    ratios = [STEP * step for step in range(1, round(1 / STEP))]
    first = bisect_left(ratios, True, key=lambda ratio: fits(taylor(setting, ratio, seed)))
    if first == len(ratios):
        raise UserError(f"{RIVAL} does not meet the budget")
    return taylor(setting, ratios[first], seed)
