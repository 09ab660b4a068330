"""Whether a network, a data set and a task fit together: said before anything is spent."""

from __future__ import annotations

import torch
from torch import nn

from gnnrl.data.images import Labelled
from gnnrl.errors import UserError, pass_on_shortage
from gnnrl.runtime import device_of
from gnnrl.tasks.base import Task

IMAGES = 32


@torch.no_grad()
def refuse_misfit(task: Task, network: nn.Module, images: Labelled) -> None:
    """Run a few images through a network; raise `UserError` where it does not take them, or gives
    what the task does not take, or fewer classes than their labels have."""
    training = network.training
    some = images.take(torch.arange(min(IMAGES, len(images))))
    x, targets = next(some.batches(IMAGES, device_of(network)))
    try:
        outputs = task.outputs(network.eval(), x)
    except Exception as error:  # any that a network raises
        pass_on_shortage(error)
        raise UserError(
            f"the network does not take images {list(x.shape[1:])} and nothing else "
            f"({_reason(error)}): check network.name and network.input_shape; what else it takes "
            "it has to make itself"
        ) from error
    finally:
        network.train(training)
    try:
        task.meter().add(outputs, targets, outputs)
        task.losses(outputs, targets)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"the network's outputs do not suit the labels of the images ({_reason(error)}): check "
            "network.name, network.num_classes, data.name and task.name"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
