"""The sections of params.yaml: typed, strict and without defaults.

params.yaml is the one source of values. A stage checks the whole file, so that a slip in a late
section fails in the first stage that runs, and is handed its own sections only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import yaml
from pydantic import model_validator

from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.params.sections import (
    Data,
    Evaluate,
    Extract,
    Network,
    Pretrain,
    Prune,
    Report,
    Train,
)
from gnnrl.settings import Section, checked, part

STAGE_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("data", "network", "pretrain"),
    "extract": ("extract",),
    "search": ("data", "search"),
    "prune": ("data", "prune"),
    "train": ("data", "train"),
    "evaluate": ("data", "evaluate"),
    "report": ("report",),
}


class Params(Section):
    """All of params.yaml."""

    data: Data
    network: Network
    pretrain: Pretrain
    extract: Extract
    search: Annotated[Any, part("gnnrl.search.settings:SearchSettings")]
    prune: Prune
    train: Train
    evaluate: Evaluate
    report: Report

    @model_validator(mode="after")
    def _weights_are_kept(self) -> Params:
        kept = [str(epoch) for epoch in self.pretrain.snapshots]
        for name, wanted in (("search", self.search.weights), ("prune", self.prune.weights)):
            if wanted not in ("initial", "final", *kept):
                raise ValueError(
                    f"'{name}.weights' is {wanted}, but no snapshot of epoch {wanted} is kept "
                    f"(kept are initial, {''.join(f'{epoch}, ' for epoch in kept)}final): add it "
                    "to 'pretrain.snapshots'"
                )
        return self

    @model_validator(mode="after")
    def _reward_images_are_new_to_the_network(self) -> Params:
        weights = self.pretrain.weights
        # a checkpoint of ours never saw the reward images of its own run
        foreign = weights is not None and not weights.endswith(".safetensors")
        if foreign and self.data.reward_from == "train":
            raise ValueError(
                "'data.reward_from' is train, but the network of 'pretrain.weights' has been "
                "trained on these images and would be scored by its memory: set it to test"
            )
        return self

    @model_validator(mode="after")
    def _statistics_are_of_reward_images(self) -> Params:
        wanted, there = self.search.reward.statistics_images, self.data.reward_images
        if wanted > there:
            raise ValueError(
                f"'search.reward.statistics_images' is {wanted}, expected at most the {there} of "
                "'data.reward_images': set it to 0 for all of them"
            )
        return self


def load_params(stage: str, path: Path, overrides: Sequence[str] = ()) -> SimpleNamespace:
    """Check all of the file at `path` and return the sections of `stage` as attributes.

    overrides: `section.key=value`, for runs outside DVC.
    """
    if overrides and os.environ.get("DVC_STAGE"):
        raise UserError(
            "--set is for runs outside DVC, which would record params.yaml and not the override: "
            "use `dvc exp run -S section.key=value`"
        )
    values = read_yaml(path)
    for override in overrides:
        _override(values, override)
    params = check(values, path.name)
    return SimpleNamespace(**{name: getattr(params, name) for name in STAGE_SECTIONS[stage]})


def check(values: Mapping[str, Any], source: str = "params.yaml") -> Params:
    """Return the checked parameters or raise one sentence about the first thing that is wrong."""
    return checked(Params, values, source)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, name = key.split(".")
    if not (equals and sections and all(sections) and name):
        raise UserError(f"--set wants section.key=value, got {override!r}")
    for depth, section in enumerate(sections, 1):
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: '{'.'.join(sections[:depth])}' holds no keys")
    values[name] = yaml.safe_load(text)
