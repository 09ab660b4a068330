"""Any network without labels: its outputs are to stay what the dense network's are."""

# B: images

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.tasks.base import Counts, Meter, Network, Task
from gnnrl.tasks.comparing import by_pixel, cosine, kl, maps, squared_error
from gnnrl.tasks.nested import tensors


class AnyOutputs(Task):
    """Tensors `[B, ...]`, as many as the network gives, and no targets.

    Each tensor is compared with the dense network's, and the mean over tensors is taken; the metric
    is the cosine.  A network is trained by distillation alone.
    """

    metric = "agreement"
    targets = "none"
    lacks = ("loss",)

    def outputs(self, network: Network, images: Tensor) -> tuple[Tensor, ...]:
        """Return all tensors of floats that the network gives, `[B, ...]` each."""
        given = tensors(network(images))
        found = tuple(tensor for tensor in given if tensor.is_floating_point())
        if not found or any(t.ndim < 2 or len(t) != len(images) for t in found):
            shapes = [list(tensor.shape) for tensor in found]
            raise UserError(
                "the task outputs takes tensors with a row for each image, the network gives "
                f"{shapes or 'none'} for {len(images)} images: write a task of your own"
            )
        return found

    def training_loss(
        self, network: Network, images: Tensor, targets: Any, smoothing: float = 0.0
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return 0, for there are no targets, and the outputs."""
        found = self.outputs(network, images)
        return torch.zeros((), device=images.device), found

    def distance(
        self,
        student: tuple[Tensor, ...],
        teacher: tuple[Tensor, ...],
        kind: str,
        temperature: float,
    ) -> Tensor:
        """kl: of softened logits, classes along the second axis; mse: normalised squared error."""
        pairs = list(zip(student, teacher, strict=True))
        if kind == "kl":
            found = [kl(by_pixel(one), by_pixel(other), temperature) for one, other in pairs]
        else:
            found = [squared_error(one, other).mean() for one, other in pairs]
        return torch.stack(found).mean()

    def divergences(
        self, outputs: tuple[Tensor, ...], dense: tuple[Tensor, ...]
    ) -> Mapping[str, float]:
        """Compare tensor by tensor; the first two take the second axis for classes."""
        pairs = list(zip(outputs, dense, strict=True))
        each = [maps(one, other) for one, other in pairs]
        return {name: sum(found[name] for found in each) / len(each) for name in each[0]}

    def meter(self) -> Meter:
        """Return a meter of the mean cosine, over tensors and images, with the dense outputs."""
        return Counts(_cosines, lambda total: float(total[0] / total[1]))


def _cosines(outputs: tuple[Tensor, ...], targets: Any, dense: tuple[Tensor, ...]) -> Tensor:
    rows = [cosine(a.double(), b.double()) for a, b in zip(outputs, dense, strict=True)]
    mean = torch.stack(rows).mean(0)
    return torch.stack([mean.sum(), mean.new_tensor(float(len(mean)))])
