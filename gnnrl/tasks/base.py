"""What every task offers: the meaning of a network's outputs."""

# N: images   B: images of a batch

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.tasks import nested

Network: TypeAlias = Callable[..., Any]
"""A module, or another way to call one: images `[B, C, H, W]` (and targets) to outputs."""

Outputs: TypeAlias = Any
"""What a task reads from a network: a tensor `[B, ...]`, tuples or mappings of these, or a list
with an entry for each image."""

Targets: TypeAlias = Any
"""What a data set knows of images, such as classes `[B]`, masks `[B, H, W]` or boxes."""


class Meter(Protocol):
    """Gathers a metric batch by batch."""

    def add(
        self, outputs: Outputs, targets: Targets, dense: Outputs = None, share: float = 1.0
    ) -> None:
        """Add a batch.

        dense: the dense network's outputs, where the task has no targets.  share: how much the
        batch counts, below 1 where several processes have the same images.
        """

    def merge(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Add what the other processes have gathered; summed: adds up a tensor over them."""

    def value(self) -> float:
        """Return the metric of all that was added."""


class Counts(Meter):
    """A metric of sums over images.

    count: the sums of a batch, from outputs, targets and the dense network's outputs, as a tensor
    of one shape.  figure: the metric of all sums.
    """

    def __init__(
        self,
        count: Callable[[Outputs, Targets, Outputs], Tensor],
        figure: Callable[[Tensor], float],
    ) -> None:
        self._count, self._figure = count, figure
        self._total: Tensor | None = None

    def add(
        self, outputs: Outputs, targets: Targets, dense: Outputs = None, share: float = 1.0
    ) -> None:
        """Add the sums of a batch."""
        found = self._count(outputs, targets, dense).double() * share
        self._total = found if self._total is None else self._total + found

    def merge(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Add the sums of the other processes."""
        if self._total is not None:
            self._total = summed(self._total)

    def value(self) -> float:
        """Return the metric; NaN where nothing was added."""
        return float("nan") if self._total is None else self._figure(self._total.cpu())


@runtime_checkable
class Task(Protocol):
    """Says what the outputs of a network mean; nothing else in the library does.

    metric: name of the figure that `meter` gathers; higher = better, at most 1.
    targets: what the data set gives for an image: classes, masks, boxes or none.
    distils: whether a teacher can add to the loss in training.
    lacks: rewards that the task cannot give, such as loss where there are no labels.

    Subclasses take what stands here unless they say otherwise.
    """

    metric: str
    targets: str
    distils: bool = True
    lacks: tuple[str, ...] = ()

    def outputs(self, network: Network, images: Tensor) -> Outputs:
        """Run a network on images `[B, C, H, W]`; return its outputs as the other methods take
        them.

        Raises `UserError` where the network's outputs are none of this task.
        """
        ...

    def training_loss(
        self, network: Network, images: Tensor, targets: Targets, smoothing: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Run a network in training mode; return its mean loss on the targets, and its outputs.

        Outputs are None where a network gives none in training.  smoothing: of labels.
        """
        ...

    def distance(self, student: Outputs, teacher: Outputs, kind: str, temperature: float) -> Tensor:
        """Return how far outputs are from a teacher's, a loss; kind: as distillation names it."""
        raise UserError(
            f"the task {type(self).__name__} has no distillation: set distillation.alpha to 0"
        )

    def losses(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Return the loss of every image `[N]`; NaN for tasks that do not know it."""
        return torch.full((count(outputs),), float("nan"))

    def loss(self, outputs: Outputs, targets: Targets) -> float:
        """Return the mean of `losses`."""
        return float(self.losses(outputs, targets).mean())

    def divergences(self, outputs: Outputs, dense: Outputs) -> Mapping[str, float]:
        """Return how far outputs are from the dense network's, by the names of `Measured`:
        divergence, jensen_shannon, squared_error, cosine; as many as the task has."""
        return {}

    def meter(self) -> Meter:
        """Return a new meter of the metric."""
        ...

    def joined(self, parts: Sequence[Outputs]) -> Outputs:
        """Return the outputs of several batches as those of one, in float32."""
        return nested.joined(parts)

    def finite(self, outputs: Outputs) -> Tensor:
        """Return whether all numbers of the outputs are finite, a bool tensor without axes."""
        return nested.finite(outputs)

    @property
    def labelled(self) -> bool:
        """Whether there are targets; without them, outputs are compared with the dense ones."""
        return self.targets != "none"


def spoken(metric: str) -> str:
    """Return the name of a metric as it is read: mean_iou as mean IoU."""
    return metric.replace("_", " ").replace("iou", "IoU")


def count(outputs: Outputs) -> int:
    """Return how many images outputs are of."""
    if isinstance(outputs, list):
        return len(outputs)
    found = nested.tensors(outputs)
    return len(found[0]) if found else 0
