"""How good a network is on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gnnrl.data.images import Labelled
from gnnrl.errors import UserError
from gnnrl.runtime import device_of
from gnnrl.tasks.base import Task, spoken
from gnnrl.tasks.classification import CLASSIFICATION

BATCH_SIZE = 256


@dataclass(frozen=True)
class Score:
    """value: the metric of the task.  loss: its mean over images.  images: how many there were."""

    value: float
    loss: float
    images: int


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: Labelled | Sequence[Labelled],
    batch_size: int = BATCH_SIZE,
    task: Task = CLASSIFICATION,
    dense: nn.Module | None = None,
) -> Score:
    """Measure the network as it is used: no dropout, batch norm with its running statistics.

    images: several splits count as one.  dense: what a network is compared with in a task without
    labels; None: with itself.  Raises `UserError` where an output is NaN or infinite.
    """
    parts = [images] if isinstance(images, Labelled) else images
    device = device_of(network)
    training = network.training
    network.eval()
    meter, loss = task.meter(), torch.zeros((), dtype=torch.float64, device=device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    beside = network if dense is None else dense.to(device).eval()
    for x, targets in (batch for part in parts for batch in part.batches(batch_size, device)):
        outputs = task.outputs(network, x)
        finite &= task.finite(outputs)
        meter.add(outputs, targets, None if task.labelled else task.outputs(beside, x))
        loss += task.losses(outputs, targets).sum()
    network.train(training)
    if not finite:
        raise UserError(
            f"the network's outputs are NaN or infinite, so there is no {spoken(task.metric)}: "
            "check its weights and at data.mean and data.std"
        )
    count = sum(len(part) for part in parts)
    return Score(meter.value(), loss.item() / count, count)


def accuracy(network: nn.Module, images: Labelled, batch_size: int = BATCH_SIZE) -> float:
    """Return the fraction of images whose class the network ranks first."""
    return evaluate(network, images, batch_size).value


@dataclass(frozen=True)
class RewardScore:
    """The metric of a task on reward images, under its name.

    dense: what networks are compared with in a task without labels; None: with themselves.
    """

    task: Task
    images: Labelled
    dense: nn.Module | None = None

    def __call__(self, network: nn.Module) -> float:
        """Return the metric."""
        return evaluate(network, self.images, task=self.task, dense=self.dense).value

    @property
    def name(self) -> str:
        """How the figure is called: reward_accuracy for classification."""
        return f"reward_{self.task.metric}"

    def each_epoch(self, epoch: int, network: nn.Module) -> dict[str, float]:
        """Return the figure of an epoch."""
        return {self.name: self(network)}
