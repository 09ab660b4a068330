"""The settings of a training of the scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gnnrl.files import read_yaml
from gnnrl.settings import Count, NotNegative, Positive, Seed, Settings, Share, Switch, checked

Kind = Literal["layered", "erdos_renyi", "montage"]


class Schedule(Settings):
    """What is drawn, how it is learned, what it is tested on."""

    seed: Seed = 0
    """Of the graphs, the agent and the tests."""
    kinds: tuple[Kind, ...] = Field(default=("layered", "erdos_renyi", "montage"), min_length=1)
    """Kinds of job graphs, drawn with the same chance."""
    machines: Count = 4
    """That tasks run on."""
    smallest: Count = 10
    """Tasks of the smallest graphs trained on."""
    largest: Count = 40
    """Tasks of the largest graphs trained on."""
    most_tasks: Count = 8
    """Ready tasks offered at a time, those of highest upward rank."""
    lookahead: Switch = True
    """Observe where HEFT and PEFT would end after each choice."""
    episodes: Count = 3000
    """Graphs trained on, each once."""
    batch: Count = 16
    """Episodes between two updates."""
    hidden: Count = 64
    """Width of the encoder."""
    layers: Count = 2
    """Rounds of message passing."""
    message_passing: Switch = False
    """Whether the encoder sees the edges."""
    learning_rate: Positive = 1e-3
    """Of PPO, as all that follow up to `target_kl`."""
    n_epochs: Count = 4
    """Passes over a rollout."""
    batch_size: Count = 128
    """Transitions of a minibatch."""
    gamma: Share = 0.95
    """Discount."""
    gae_lambda: Share = 0.95
    """Of the generalised advantage estimate."""
    ent_coef: NotNegative = 0.0005
    """Weight of the entropy in the loss."""
    target_kl: Positive = 0.1
    """An update ends when it is exceeded by half."""
    test_problems: Count = 50
    """Held-out graphs of each size."""
    test_tasks: Count = 50
    """Their tasks."""
    large_tasks: Count = 200
    """Tasks of the large ones."""
    tiny_tasks: Count = 8
    """Tasks of the tiny ones: few enough for exact search."""
    samples: Count = 16
    """Schedules drawn for best-of-N, which is reported separately."""

    @model_validator(mode="after")
    def _sizes(self) -> Schedule:
        if self.smallest > self.largest:
            raise ValueError(f"smallest {self.smallest} is more than largest {self.largest}")
        return self


class File(Settings):
    """A file of settings."""

    schedule: Schedule = Schedule()
    """Its one section."""


def load_settings(path: Path) -> Schedule:
    """Return the section `schedule` of a YAML file, or say in one sentence what is wrong."""
    return checked(File, read_yaml(path), path.name).schedule
