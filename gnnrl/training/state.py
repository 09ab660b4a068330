"""The state of a training: everything that changes while a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gnnrl.data.images import Labelled, batch_count
from gnnrl.errors import UserError
from gnnrl.progress import Progress
from gnnrl.runtime import device_of, generator
from gnnrl.tasks.base import Outputs
from gnnrl.training.distillation import Objective
from gnnrl.training.distributed import Part, ProcessGroup
from gnnrl.training.recipe import TrainingRecipe

State: TypeAlias = dict[str, Tensor]
EachEpoch: TypeAlias = Callable[[int, nn.Module], Mapping[str, float]]


class Diverged(UserError):
    """The loss is not finite."""


@dataclass(frozen=True)
class Asked:
    """The arguments of `train` besides network and images."""

    recipe: TrainingRecipe
    seed: int
    objective: Objective
    snapshots: Collection[int]
    each_epoch: EachEpoch | None
    zeros: Mapping[str, Tensor]
    scratch: Path | None


@dataclass(eq=False)
class TrainingState:
    """Everything that changes while a network is trained."""

    network: nn.Module
    images: Labelled
    asked: Asked
    group: ProcessGroup
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe = self.recipe = self.asked.recipe
        self.objective = self.asked.objective
        self.device = device_of(self.network)
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        if recipe.channels_last:
            self.network.to(memory_format=self.layout)
        self.order = generator(self.asked.seed, "order and augmentation")
        self.optimizer = recipe.make_optimizer(self.network.parameters())
        if self.objective.teacher is not None:
            self.objective.teacher.teacher.to(self.device).eval()
        self.zeroed = [
            (self.network.get_parameter(name), mask.to(self.device))
            for name, mask in self.asked.zeros.items()
        ]
        self.called = self.group.joined(self.network)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    def run_epoch(self, bar: Progress) -> None:
        """Go over all images once and add a row to the history."""
        recipe, start = self.recipe, self.epoch
        steps = batch_count(len(self.images), recipe.batch_size)
        loss, meter = torch.zeros((), device=self.device), self.objective.task.meter()
        self.network.train()
        if self.group.rank > 0:  # random numbers of its own, the same after a resume
            own = generator(self.asked.seed, f"dropout of process {self.group.rank} in {start}")
            torch.manual_seed(own.initial_seed())
        batches = self.images.batches(
            recipe.batch_size, self.device, self.order, augment=recipe.augment
        )
        for step, (x, labels) in enumerate(batches):
            self._set_learning_rate(recipe.learning_rate_at(start + (step + 0.5) / steps))
            part = self.group.part(x, labels)
            step_loss, outputs, teacher = self._step(part)
            loss += step_loss * len(part.labels) * part.share
            if outputs is not None:
                with torch.no_grad():
                    meter.add(outputs, part.labels, teacher, part.share)
            bar.advance()
        loss = self.group.summed(loss)
        meter.merge(self.group.summed)
        row = {
            "epoch": start + 1,
            "learning_rate": recipe.learning_rate_at(start + 0.5 / steps),
            "loss": loss.item() / len(self.images),
        }
        metric, reached = self.objective.task.metric, meter.value()
        if not math.isnan(reached):  # some networks give no outputs in training
            row[metric] = reached
        self._refuse_divergence(row)
        ask = self.asked.each_epoch if self.group.rank == 0 else None
        extra = ask(start + 1, self.network) if ask else {}
        self.history.append({**row, **extra})
        known = (row[metric] for row in self.history if metric in row)
        bar.advance(0, best=max(known, default=None))

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def _step(self, part: Part) -> tuple[Tensor, Outputs, Outputs]:
        x = part.x.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            loss, outputs, teacher = self.objective.loss(
                self.called, x, part.labels, self.recipe.label_smoothing
            )
        self.optimizer.zero_grad()
        self.group.backward(loss * part.weight)
        self.optimizer.step()
        with torch.no_grad():
            for weight, mask in self.zeroed:  # momentum and weight decay alone keep none at zero
                weight.masked_fill_(mask, 0.0)
        return loss.detach(), outputs, teacher

    def _refuse_divergence(self, row: Mapping[str, float]) -> None:
        if not math.isfinite(row["loss"]):
            raise Diverged(
                f"training diverged in epoch {row['epoch']} (loss {row['loss']}): lower "
                f"learning_rate ({self.recipe.learning_rate}) or raise warmup_epochs "
                f"({self.recipe.warmup_epochs})"
            )

    def keep_snapshot(self, epoch: int) -> None:
        """Keep a copy of the weights as they are."""
        state = self.network.state_dict()
        self.snapshots[epoch] = {key: value.cpu().clone() for key, value in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        cuda = self.device.type == "cuda"
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "dropout": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            "history": self.history,
            "snapshots": self.snapshots,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"])
        torch.set_rng_state(state["dropout"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)
        self.history, self.snapshots = state["history"], state["snapshots"]
