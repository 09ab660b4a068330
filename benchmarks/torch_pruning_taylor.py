"""Torch-Pruning with Taylor importance, scaled to what is asked: the rival of two benchmarks."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness import Setting, existing
from gnnrl.data.calibration import labelled_images
from gnnrl.errors import UserError
from gnnrl.runtime import device

RIVAL = "torch-pruning"
RATIOS = [0.025 * step for step in range(1, 40)]
"""Of channels, that are tried where all are removed at once."""
STEPS = 50
"""Where they are removed little by little."""
IMAGES, BATCH = 1024, 256
"""Labelled training images that give the gradients, and how many of them pass at once."""

Fits = Callable[[nn.Module], bool]


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add --torch-pruning, the folder that it is installed in: it is no dependency."""
    parser.add_argument("--torch-pruning", type=_installed, help="the folder that it is in")


def _installed(folder: str) -> Path:
    path = existing(Path(folder), "--torch-pruning")
    sys.path.append(str(path))
    return path


def lowest(setting: Setting, fits: Fits, seed: int) -> nn.Module:
    """Return the residual network pruned inside its blocks at the lowest ratio that fits.

    Global, in one step; Torch-Pruning does not follow the padding of the shortcuts.  Raises
    `UserError` where none fits.
    """
    dense = copy.deepcopy(setting.network).eval()
    _add_gradients(dense, *labelled_images(setting.train, IMAGES, seed, device()))
    for ratio in RATIOS:
        network = copy.deepcopy(dense)
        for own, parameter in zip(network.parameters(), dense.parameters(), strict=True):
            own.grad = None if parameter.grad is None else parameter.grad.clone()
        _pruner(setting, network, _outside_blocks(network), ratio, global_pruning=True).step()
        if fits(network):
            network.zero_grad(set_to_none=True)
            return network
    raise UserError(f"{RIVAL} does not meet the budget")


def stepwise(setting: Setting, fits: Fits, seed: int) -> nn.Module:
    """Return the transformer pruned step by step, one ratio for all layers but its last, until it
    fits.

    Raises `UserError` where it never does.
    """
    network = copy.deepcopy(setting.network).eval()
    last = network.get_submodule("heads")
    images, labels = labelled_images(setting.train, IMAGES, seed, device())
    numbers = {m: m.num_heads for m in network.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = _pruner(setting, network, [last], 1.0, iterative_steps=STEPS, num_heads=numbers)
    for _ in range(STEPS):
        if fits(network):
            return network.eval()
        network.zero_grad()
        _add_gradients(network, images, labels)
        pruner.step()
    raise UserError(f"{RIVAL} does not meet the budget in {STEPS} steps")


def _pruner(setting: Setting, network: nn.Module, kept: list[nn.Module], ratio: float, **how):
    import torch_pruning as tp

    return tp.pruner.BasePruner(
        network,
        torch.zeros(1, *setting.graph.input_shape, device=device()),
        importance=tp.importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        ignored_layers=kept,
        **how,
    )


def _outside_blocks(network: nn.Module) -> list[nn.Module]:
    """The layers that write what blocks add up, or classes."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    return [layer for name, layer in layers.items() if ".conv1" not in name]


def _add_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Add the gradients of the mean loss."""
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        (nn.functional.cross_entropy(network(x), y) * (len(x) / len(images))).backward()
