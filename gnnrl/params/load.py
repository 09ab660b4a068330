"""The sections of params.yaml: typed, strict and without defaults.

params.yaml is the one source of values. A stage checks the whole file, so that a slip in a late
section fails in the first stage that runs, and is handed its own sections only.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import ErrorDetails

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
    Search,
    Train,
)
from gnnrl.settings import Section

STAGE_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("data", "network", "pretrain"),
    "extract": ("network", "extract"),
    "search": ("data", "network", "search"),
    "prune": ("data", "network", "prune"),
    "train": ("data", "network", "train"),
    "evaluate": ("data", "network", "evaluate"),
    "report": ("report",),
}


class Params(Section):
    """All of params.yaml."""

    data: Data
    network: Network
    pretrain: Pretrain
    extract: Extract
    search: Search
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
        # a checkpoint of ours never saw the reward images of its own run; `starting_point` tells
        # it from other files of that name
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
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        # a misspelt key is also a missing one: say what was typed, not what follows from it
        found = sorted(
            error.errors(), key=lambda e: e["type"] not in ("unknown", "extra_forbidden")
        )[0]
        raise UserError(f"{source}: {_sentence(found)}") from None


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


def _sentence(error: ErrorDetails) -> str:
    path = ".".join(str(part) for part in error["loc"])
    kind, got, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "unknown":
        where = (*error["loc"], context["key"])
        return f"unknown key '{'.'.join(map(str, where))}'{_hint(where)}"
    if kind == "extra_forbidden":
        return f"unknown key '{path}'{_hint(error['loc'])}"
    if kind == "missing" and isinstance(error["loc"][-1], int):
        return f"'{path.rpartition('.')[0]}' has too few entries, got {got!r}"
    if kind == "missing":
        what = "section" if len(error["loc"]) == 1 else "key"
        return f"missing {what} '{path}': add it, nothing has a default"
    if kind == "value_error":
        return f"'{path}' {context['error']}" if path else str(context["error"])
    return f"'{path}' must be {_expected(kind, error['msg'], context)}, got {_shown(got)}"


def _shown(value: Any) -> str:
    """Return a value as it stands in YAML, shortened."""
    text = {None: "null", True: "true", False: "false"}.get(value) if _plain(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _expected(kind: str, message: str, context: Mapping[str, Any]) -> str:
    bounds = {"greater_than": "greater than {gt:g}", "greater_than_equal": "at least {ge:g}"}
    bounds |= {"less_than": "less than {lt:g}", "less_than_equal": "at most {le:g}"}
    if kind in bounds:
        return bounds[kind].format(**context)
    if kind == "literal_error":
        return f"one of {context['expected']}"
    if kind.startswith("int_"):
        return "a whole number"
    if kind.startswith("float_") or kind == "finite_number":
        return "a number"
    names = {"string_type": "a text", "bool_type": "true or false", "tuple_type": "a list"}
    names |= {"model_type": "a mapping of keys", "model_attributes_type": "a mapping of keys"}
    return names.get(kind, message.removeprefix("Input should be "))


def _hint(location: tuple[int | str, ...]) -> str:
    *parents, word = (str(part) for part in location)
    known = list(_fields(parents))
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f"; did you mean '{'.'.join([*parents, near[0]])}'?"
    return f"; known here: {', '.join(known)}"


def _fields(parents: Sequence[str]) -> Iterator[str]:
    model: type[BaseModel] = Params
    for name in parents:
        annotation = model.model_fields[name].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    yield from model.model_fields
