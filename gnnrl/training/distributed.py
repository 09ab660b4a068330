"""The processes that train one network together, and what each of them does of a batch."""

# B: images of a batch, N: of all processes   C: channels

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.runtime import device, die_with_parent

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Part:
    """What one process does of a batch.

    weight: of its mean loss, so that the mean of all gradients is that of the whole batch.
    share: of its sums in those of all processes; below 1 where several have the same images.
    """

    x: Tensor
    labels: Any
    weight: float = 1.0
    share: float = 1.0


class Alone:
    """One process, which does it all."""

    rank = 0

    def joined(self, network: nn.Module) -> nn.Module:
        """Return what is called in training; its parameters are those of the network."""
        return network

    def part(self, x: Tensor, labels: Any) -> Part:
        """Return what this process does of a batch."""
        return Part(x, labels)

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients: the same in all processes."""
        loss.backward()

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return values

    def agreed(self, value: Any) -> Any:
        """Return what the first process has for it."""
        return value


class Together:
    """One of several processes; each has its part of every batch, and normalises over all of it."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.rank, self.size = fabric, fabric.global_rank, fabric.world_size

    def joined(self, network: nn.Module) -> nn.Module:
        """Return the network, its gradients averaged and its batch norms shared."""
        for module in network.modules():
            if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                module.__class__ = SharedBatchNorm
        return self.fabric.setup_module(network, move_to_device=False)

    def part(self, x: Tensor, labels: Any) -> Part:
        """Return every `size`-th image; of a batch too small for that, all of it."""
        if len(x) < self.size:
            return Part(x, labels, share=1.0 / self.size)
        own = labels[self.rank :: self.size]
        return Part(x[self.rank :: self.size], own, weight=self.size * len(own) / len(labels))

    def backward(self, loss: Tensor) -> None:
        """Add the mean over all processes to the gradients."""
        self.fabric.backward(loss)

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        total = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def agreed(self, value: Any) -> Any:
        """Return what the first process has for it."""
        return self.fabric.broadcast(value)


ProcessGroup = Alone | Together


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of the batches of all processes, on any device."""

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `[B, C, ...]` by mean and variance over all N images."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        mean, squares, count = _moments(x, axes)
        centred, variance = x - mean.view(shape), squares / count
        self._remember(mean.detach(), (squares / (count - 1)).detach())
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


def _moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], sum of squared differences from it [C], and count, over all processes.

    One message (Chan et al. 1979 put parts together); gradients flow to every process.
    """
    from torch import distributed
    from torch.distributed.nn.functional import all_reduce

    variance, mean = torch.var_mean(x, axes, correction=0)
    count = x.new_tensor([x.numel() / x.shape[1]])
    own = torch.cat([mean, variance * count, count])
    rank, size = distributed.get_rank(), distributed.get_world_size()
    rows = [own if row == rank else torch.zeros_like(own) for row in range(size)]
    means, squares, counts = all_reduce(torch.stack(rows)).split([len(mean), len(mean), 1], dim=1)
    whole = counts.sum().detach()
    mean = (counts * means).sum(0) / whole
    return mean, (squares + counts * (means - mean).square()).sum(0), whole


def launch(processes: int, machines: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call `work(group, *arguments)` in so many processes on each machine; return the result.

    The arguments are sent by pickle, and all processes share the memory of their tensors; the
    result of the first is saved by `torch.save`. All of them end with this process.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError:
        raise UserError(
            "recipe.processes: training in several processes needs Lightning Fabric: "
            "pip install 'gnnrl-pipeline[distributed]', or leave processes and machines out"
        ) from None
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    place = device().type
    strategy = DDPStrategy(
        start_method="spawn", process_group_backend="nccl" if place == "cuda" else "gloo"
    )
    fabric = Fabric(accelerator=place, devices=processes, num_nodes=machines, strategy=strategy)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.pt"
        deterministic = torch.are_deterministic_algorithms_enabled()
        refused = fabric.launch(_Member(out, deterministic, work, arguments, os.getpid()))
        if refused is not None:
            raise refused
        return torch.load(out, weights_only=True)["result"]


@dataclass(frozen=True)
class _Member:
    """What one of the processes does."""

    out: Path
    deterministic: bool
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    parent: int  # the process that starts them

    def __call__(self, fabric: Fabric) -> UserError | None:
        die_with_parent(self.parent)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=True)
        if fabric.device.type == "cuda":
            torch.cuda.set_device(fabric.device)
        try:
            result = self.work(Together(fabric), *self.arguments)
        except UserError as error:  # of the input: all processes find the same
            return error
        if fabric.local_rank == 0:
            torch.save({"result": result}, self.out)
        return None
