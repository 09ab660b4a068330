"""params.yaml: read, checked as a whole, handed to the stages by sections."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import yaml
from pydantic import model_validator

from gnnrl.data.settings import DataRecipe
from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.graph.settings import ExtractSettings
from gnnrl.measurement.settings import EvaluateSettings
from gnnrl.networks.settings import NetworkSettings
from gnnrl.params import compatibility
from gnnrl.pruning.settings import PruneSettings
from gnnrl.report.settings import ReportSettings
from gnnrl.settings import Settings, checked, part
from gnnrl.tasks.settings import TaskSettings
from gnnrl.training.settings import PretrainSettings, TrainSettings

STAGE_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("data", "network", "task", "pretrain"),
    "extract": ("network", "extract"),
    "search": ("data", "network", "task", "search"),
    "prune": ("data", "network", "task", "prune"),
    "train": ("data", "network", "task", "train"),
    "evaluate": ("data", "network", "task", "evaluate"),
    "report": ("report",),
}

CHECK_SEARCH = ("pretrain", "extract", "search")


class Params(Settings):
    """All of params.yaml; an absent section or key takes its default."""

    data: DataRecipe = DataRecipe()
    """Which images, and which of them score the search."""
    network: NetworkSettings = NetworkSettings()
    """The network that is pruned."""
    task: TaskSettings = TaskSettings()
    """What the network's outputs mean."""
    pretrain: PretrainSettings = PretrainSettings()
    """Where the dense network's weights come from."""
    extract: ExtractSettings = ExtractSettings()
    """How the network is read."""
    search: Annotated[Any, part("gnnrl.search.settings:SearchSettings")]
    """What is searched for, by whom, at what cost."""
    prune: PruneSettings = PruneSettings()
    """How the plan is applied."""
    train: TrainSettings = TrainSettings()
    """How the subnet is trained."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """How the dense network and the subnet are compared."""
    report: ReportSettings = ReportSettings()
    """What the page shows."""

    @model_validator(mode="after")
    def _fit_together(self) -> Params:
        compatibility.refuse_snapshots(self)
        compatibility.refuse_weights(self)
        compatibility.refuse_seen_images(self)
        compatibility.refuse_too_few_images(self)
        compatibility.refuse_no_table(self)
        return self


def load_params(stage: str, path: Path, overrides: Sequence[str] = ()) -> SimpleNamespace:
    """Check the file at `path` and return the sections of `stage` as attributes.

    The whole file is checked, so that a slip in a late section fails in the first stage that runs.
    Only stages after the search leave its section out: it was checked before, and takes seconds.
    overrides: `section.key=value`, for runs outside DVC.
    """
    if overrides and os.environ.get("DVC_STAGE"):
        raise UserError(
            "--set is for runs outside DVC, which would record params.yaml and not the override: "
            "use `dvc exp run -S section.key=value`"
        )
    values = read_yaml(path)
    for override in overrides:
        put(values, override)
    if stage not in CHECK_SEARCH:
        values["search"] = None
    params = check(values, path.name)
    if stage == "search" and (remark := compatibility.reward_unlike_prune(params)):
        print(f"{stage}: {remark}", file=sys.stderr)
    refuse_absent(params, stage)
    if os.environ.get("DVC_STAGE"):
        for remark in compatibility.unwatched(params, stage):
            print(f"{stage}: {remark}", file=sys.stderr)
    compatibility.refuse_unfit_task(params)
    return SimpleNamespace(**{name: getattr(params, name) for name in STAGE_SECTIONS[stage]})


def refuse_absent(params: Params, stage: str) -> None:
    """Raise `UserError` where a file or a folder of images is not there, before any is read."""
    compatibility.refuse_missing_files(params, stage)
    if "data" in STAGE_SECTIONS[stage]:
        compatibility.refuse_wrong_folder(params)


def check(values: Mapping[str, Any], source: str = "params.yaml") -> Params:
    """Return the checked parameters or raise one sentence about the first thing that is wrong."""
    return checked(Params, {"search": {}, **values}, source)


def resolved(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return what results depend on in some sections, defaults included, as plain values."""
    return {
        name: section.resolved() if name == "search" else section.model_dump(mode="json")
        for name, section in sections.items()
    }


def without_effect(sections: SimpleNamespace) -> Iterator[str]:
    """Yield a sentence for every part that is there for an agent which is not chosen."""
    if search := getattr(sections, "search", None):
        for key in search.without_effect:
            yield f"'search.{key}' has no effect: the agent is {search.agent}"


def put(values: dict[str, Any], override: str) -> None:
    """Set one key: `section.key=value`, the value as YAML."""
    key, equals, text = override.partition("=")
    *sections, name = key.split(".")
    if not (equals and sections and all(sections) and name):
        raise UserError(f"--set wants section.key=value, got {override!r}")
    for depth, section in enumerate(sections, 1):
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: '{'.'.join(sections[:depth])}' holds no keys")
    try:
        values[name] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--set {override}: the value is not YAML ({reason}): quote it") from error
