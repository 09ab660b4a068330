"""The parameters of a training: one section of a YAML file, typed, strict and without defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError, model_validator

from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.settings import Count, NotNegative, Positive, Section, Seed, Share

Kind = Literal["layered", "erdos_renyi", "montage"]


class Schedule(Section):
    """What is drawn, how it is learned, what it is tested on."""

    seed: Seed
    kinds: tuple[Kind, ...]  # of job graphs, drawn alike
    machines: Count
    smallest: Count  # tasks of the graphs trained on, from
    largest: Count  # to
    most_tasks: Count  # ready tasks offered at a time
    lookahead: bool  # observe where HEFT and PEFT would end after each choice
    episodes: Count
    batch: Count  # episodes between two updates
    hidden: Count
    layers: Count
    message_passing: bool
    learning_rate: Positive
    n_epochs: Count
    batch_size: Count
    gamma: Share
    gae_lambda: Share
    ent_coef: NotNegative
    target_kl: Positive
    test_problems: Count  # of each size
    test_tasks: Count
    large_tasks: Count
    tiny_tasks: Count  # few enough for exact search
    samples: Count  # schedules drawn for best-of-N, which is reported by itself

    @model_validator(mode="after")
    def _sizes(self) -> Schedule:
        if not self.kinds:
            raise ValueError("kinds must name at least one kind of graph")
        if self.smallest > self.largest:
            raise ValueError(f"smallest {self.smallest} is more than largest {self.largest}")
        return self


def load_settings(path: Path) -> Schedule:
    """The section `schedule` of a YAML file, or one sentence about the first thing wrong."""
    values = read_yaml(path)
    if set(values) != {"schedule"}:
        raise UserError(f"{path} must hold one section 'schedule', got {sorted(map(str, values))}")
    try:
        return Schedule.model_validate(values["schedule"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["schedule", *(str(part) for part in first["loc"])])
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise UserError(f"{path.name}: '{where}': {first['msg']}{got}") from None
