"""How good a network is on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from gnnrl.data.images import Labelled
from gnnrl.errors import UserError

BATCH_SIZE = 256


@dataclass(frozen=True)
class Score:
    """accuracy: top-1, in [0, 1].  loss: mean cross-entropy.  images: how many were measured."""

    accuracy: float
    loss: float
    images: int


@torch.no_grad()
def evaluate(network: nn.Module, images: Labelled, batch_size: int = BATCH_SIZE) -> Score:
    """Measure the network as it is used: no dropout, batch norm with its running statistics.

    Raises `UserError` where a logit is NaN or infinite.
    """
    device = device_of(network)
    training = network.training
    network.eval()
    correct = torch.zeros((), dtype=torch.long, device=device)
    loss = torch.zeros((), device=device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    for x, labels in images.batches(batch_size, device):
        logits = network(x)  # [B, K]
        finite &= logits.isfinite().all()
        correct += (logits.argmax(1) == labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    network.train(training)
    if not finite:
        raise UserError(
            "the network's logits are NaN or infinite, so there is no accuracy: check its "
            "weights and at data.mean and data.std"
        )
    return Score(correct.item() / len(images), loss.item() / len(images), len(images))


def accuracy(network: nn.Module, images: Labelled, batch_size: int = BATCH_SIZE) -> float:
    """Return the fraction of images whose class the network ranks first."""
    return evaluate(network, images, batch_size).accuracy


def reward_accuracy(images: Labelled, epoch: int, network: nn.Module) -> dict[str, float]:
    """Return the figure of an epoch: accuracy on reward images."""
    return {"reward_accuracy": accuracy(network, images)}


def device_of(network: nn.Module) -> torch.device:
    """Return the device the network's first parameter is on (the CPU if it has none)."""
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device
