"""Trains a network; a killed run continues where it was and ends as if it had not been killed."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.data.images import Labelled, batch_count
from gnnrl.errors import UserError
from gnnrl.progress import progress
from gnnrl.runtime import device, generator
from gnnrl.sealed import read_or_set_aside, write_state
from gnnrl.training.distillation import Objective
from gnnrl.training.distributed import Alone, ProcessGroup, launch
from gnnrl.training.recipe import TrainingRecipe
from gnnrl.training.state import Asked, EachEpoch, State, TrainingState
from gnnrl.watch import Watch

STATE_FILE = "training.pt"
SECONDS_BETWEEN_STATES = 5.0


@dataclass(frozen=True)
class Training:
    """What training leaves in addition to the network.

    history: one row per epoch: epoch, learning_rate (of its first step), loss and the task's metric
        on the images as they were trained on, and what `each_epoch` added.
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
    objective: Objective | None = None,
    snapshots: Collection[int] = (),
    each_epoch: EachEpoch | None = None,
    zeros: Mapping[str, Tensor] | None = None,
    scratch: Path | None = None,
    visible: bool | Watch = False,
) -> Training:
    """Train the network in place, on the device found; the seed alone decides the outcome.

    objective: the task and its teacher; None: classification without a teacher.
    each_epoch: called as (epoch, network), returns further figures for the epoch's row.
    zeros: by parameter name, true where a weight is kept at zero.
    scratch: a folder, claimed for this very training, to keep the state of a killed run in.
    visible: show progress; a `Watch` also gets the figures of every epoch.
    """
    _refuse_unknown(snapshots, recipe.epochs)
    objective = objective or Objective()
    if recipe.epochs:
        objective.refuse_impossible()
    asked = Asked(recipe, seed, objective, tuple(snapshots), each_epoch, zeros or {}, scratch)
    processes, machines = recipe.processes or 1, recipe.machines or 1
    if processes * machines == 1:
        return _train(Alone(), network, images, asked, visible)
    done = launch(processes, machines, _train_together, network, images, asked, visible)
    network.to(device()).load_state_dict(done["network"])
    return Training(tuple(done["history"]), done["snapshots"])


def _train(
    group: ProcessGroup, network: nn.Module, images: Labelled, asked: Asked, visible: bool | Watch
) -> Training:
    place, recipe = device(), asked.recipe
    images = images.to(place)
    steps = batch_count(len(images), recipe.batch_size)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(generator(asked.seed, "dropout").initial_seed())
        training = TrainingState(network.to(place), images, asked, group)
        keeper = _Keeper(asked.scratch, training)
        if 0 in asked.snapshots and not training.history:
            training.keep_snapshot(0)
        done = training.epoch * steps
        watch = visible if isinstance(visible, Watch) else None
        if watch is not None:
            watch.begin(training.epoch)
        shown = visible is not False
        with progress("training", recipe.epochs * steps, done=done, visible=shown) as bar:
            while training.epoch < recipe.epochs:
                training.run_epoch(bar)
                if watch is not None:
                    watch.add(training.epoch, training.history[-1])
                if training.epoch in asked.snapshots:
                    training.keep_snapshot(training.epoch)
                keeper.save_now_and_then()
        if watch is not None:
            watch.close()
    return Training(tuple(training.history), training.snapshots)


def _train_together(
    group: ProcessGroup, network: nn.Module, images: Labelled, asked: Asked, visible: bool | Watch
) -> dict[str, Any]:
    """Train in one of several processes; return all that comes of it as tensors and numbers."""
    network = copy.deepcopy(network)  # what was sent is shared with the other processes
    training = _train(group, network, images, asked, visible if group.rank == 0 else False)
    state = {key: value.cpu() for key, value in network.state_dict().items()}
    history = [dict(row) for row in training.history]
    return {"network": state, "history": history, "snapshots": dict(training.snapshots)}


def _refuse_unknown(snapshots: Iterable[int], epochs: int) -> None:
    beyond = [epoch for epoch in snapshots if not 0 <= epoch <= epochs]
    if beyond:
        raise UserError(f"a snapshot of epoch {beyond[0]} is asked for, but there are {epochs}")


class _Keeper:
    """Saves the training state in the scratch folder and restores it from there."""

    def __init__(self, scratch: Path | None, training: TrainingState) -> None:
        group = training.group
        self.path = None if scratch is None or group.rank > 0 else scratch / STATE_FILE
        self.training, self.saved = training, time.monotonic()
        written = None if self.path is None else read_or_set_aside(self.path)
        if (written := group.agreed(written)) is not None:
            training.load_state_dict(written)
        if self.path is not None and written is not None:
            print(
                f"training goes on after epoch {training.epoch} of {training.recipe.epochs}",
                flush=True,
            )

    def save_now_and_then(self) -> None:
        """Save the state where a folder was given and the last save is some seconds ago."""
        if self.path is None or time.monotonic() - self.saved < SECONDS_BETWEEN_STATES:
            return
        write_state(self.path, self.training.state_dict())
        self.saved = time.monotonic()
