"""Trains a network; a killed run goes on where it was and ends as if it had not been killed."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.data.images import Labelled, batch_count
from gnnrl.errors import UserError
from gnnrl.progress import Progress, progress
from gnnrl.runtime import atomic_write, device, generator
from gnnrl.training.distillation import Distillation
from gnnrl.training.recipe import TrainingRecipe

State: TypeAlias = dict[str, Tensor]
EachEpoch: TypeAlias = Callable[[int, nn.Module], Mapping[str, float]]

STATE_FILE = "training.pt"
SECONDS_BETWEEN_STATES = 5.0


class Diverged(UserError):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Training:
    """What a course of training leaves beside the network.

    history: one row per epoch: epoch, learning_rate (of its first step), loss and accuracy on the
        images as they were trained on, and what `each_epoch` added.
    snapshots: the weights after the epochs asked for (0: before the first).
    """

    history: tuple[Mapping[str, float], ...]
    snapshots: Mapping[int, State]


def train(
    network: nn.Module,
    images: Labelled,
    recipe: TrainingRecipe,
    *,
    seed: int = 0,
    distillation: Distillation | None = None,
    snapshots: Collection[int] = (),
    each_epoch: EachEpoch | None = None,
    zeros: Mapping[str, Tensor] | None = None,
    scratch: Path | None = None,
    visible: bool = False,
) -> Training:
    """Train the network in place, on the device found; the seed alone decides the outcome.

    each_epoch: called as (epoch, network), returns further figures for the epoch's row.
    zeros: by parameter name, true where a weight is zero and stays so.
    scratch: a folder, claimed for this very training, to keep the state of a killed run in.
    visible: show progress.
    """
    _refuse_unknown(snapshots, recipe.epochs)
    place = device()
    images = images.to(place)
    steps = batch_count(len(images), recipe.batch_size)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(generator(seed, "dropout").initial_seed())
        course = _Course(network.to(place), images, recipe, seed, distillation, zeros or {})
        keeper = _Keeper(scratch, course)
        if 0 in snapshots and not course.history:
            course.keep_snapshot(0)
        done = course.epoch * steps
        with progress("training", recipe.epochs * steps, done=done, visible=visible) as bar:
            while course.epoch < recipe.epochs:
                course.run_epoch(bar, each_epoch)
                if course.epoch in snapshots:
                    course.keep_snapshot(course.epoch)
                keeper.save_now_and_then()
    return Training(tuple(course.history), course.snapshots)


def _refuse_unknown(snapshots: Iterable[int], epochs: int) -> None:
    beyond = [epoch for epoch in snapshots if not 0 <= epoch <= epochs]
    if beyond:
        raise UserError(f"a snapshot of epoch {beyond[0]} is asked for, but there are {epochs}")


@dataclass(eq=False)
class _Course:
    """Everything that changes while a network is trained."""

    network: nn.Module
    images: Labelled
    recipe: TrainingRecipe
    seed: int
    distillation: Distillation | None
    zeros: Mapping[str, Tensor]
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.device = next(self.network.parameters()).device
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        if recipe.channels_last:
            self.network.to(memory_format=self.layout)
        self.order = generator(self.seed, "order and augmentation")
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        if self.distillation is not None:
            self.distillation.teacher.to(self.device).eval()
        self.zeroed = [
            (self.network.get_parameter(name), mask.to(self.device))
            for name, mask in self.zeros.items()
        ]

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    def run_epoch(self, bar: Progress, each_epoch: EachEpoch | None) -> None:
        """Go over all images once and add a row to the history."""
        recipe, start = self.recipe, self.epoch
        steps = batch_count(len(self.images), recipe.batch_size)
        loss, correct = torch.zeros(2, device=self.device)
        self.network.train()
        batches = self.images.batches(
            recipe.batch_size, self.device, self.order, augment=recipe.augment
        )
        for step, (x, labels) in enumerate(batches):
            self._set_learning_rate(recipe.learning_rate_at(start + (step + 0.5) / steps))
            step_loss, logits = self._step(x, labels)
            loss += step_loss * len(labels)
            correct += (logits.argmax(1) == labels).sum()
            bar.advance()
        row = {
            "epoch": start + 1,
            "learning_rate": recipe.learning_rate_at(start + 0.5 / steps),
            "loss": loss.item() / len(self.images),
            "accuracy": correct.item() / len(self.images),
        }
        self._refuse_divergence(row)
        extra = each_epoch(start + 1, self.network) if each_epoch else {}
        self.history.append({**row, **extra})
        bar.advance(0, best=max(row["accuracy"] for row in self.history))

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def _step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            logits = self.network(x)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            if self.distillation is not None:
                with torch.no_grad():
                    teacher = self.distillation.teacher(x)
                loss = self.distillation.loss(logits, teacher, loss)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for weight, mask in self.zeroed:  # momentum and weight decay alone keep none at zero
                weight.masked_fill_(mask, 0.0)
        return loss.detach(), logits.detach()

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


class _Keeper:
    """Puts the state of a course into the scratch folder, and takes it from there."""

    def __init__(self, scratch: Path | None, course: _Course) -> None:
        self.path = None if scratch is None else scratch / STATE_FILE
        self.course, self.saved = course, time.monotonic()
        if self.path is not None and self.path.exists():
            course.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
            print(
                f"training goes on after epoch {course.epoch} of {course.recipe.epochs}", flush=True
            )

    def save_now_and_then(self) -> None:
        """Save, if there is a place for it and the last time is some seconds ago."""
        if self.path is None or time.monotonic() - self.saved < SECONDS_BETWEEN_STATES:
            return
        content = io.BytesIO()
        torch.save(self.course.state_dict(), content)
        atomic_write(self.path, content.getvalue())
        self.saved = time.monotonic()
