"""Which settings go together: said before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnnrl.data.class_folders import class_folders
from gnnrl.data.settings import root_of
from gnnrl.errors import UserError
from gnnrl.files import user_path

NEED_LABELS = ("snip", "taylor", "grasp")
"""Importances that need a loss on labels."""


def refuse_weights(params: Any) -> None:
    """Raise `ValueError` where weights are asked for that pretraining does not keep."""
    kept = [str(epoch) for epoch in params.pretrain.snapshots]
    students = getattr(params.search, "students", None)
    if params.search is not None and params.prune.goes_on and not (students and students.keep):
        raise ValueError(
            "'prune.weights' is student, but the search keeps no students: give 'search.students', "
            "with 'keep' at least 1, or set 'prune.weights' to final"
        )
    if params.search is not None and params.prune.goes_on:
        if params.search.budgets or not params.search.evaluations:
            raise ValueError(
                "'prune.weights' is student, but a search of several budgets, or of no evaluation, "
                "does not keep the student of every plan: set 'search.budgets' to [] and "
                "'search.evaluations' to at least 1, or 'prune.weights' to final"
            )
    asked = {"search": getattr(params.search, "weights", "final")}
    for name, wanted in (asked | {"prune": params.prune.dense_weights}).items():
        if wanted not in ("initial", "final", *kept):
            raise ValueError(
                f"'{name}.weights' is {wanted}, but no snapshot of epoch {wanted} is kept "
                f"(kept are initial, {''.join(f'{epoch}, ' for epoch in kept)}final): add it "
                "to 'pretrain.snapshots'"
            )


def refuse_snapshots(params: Any) -> None:
    """Raise `ValueError` for snapshots of epochs that there are not."""
    epochs = params.pretrain.recipe.epochs
    beyond = [epoch for epoch in params.pretrain.snapshots if epoch > epochs]
    if beyond:
        raise ValueError(
            f"'pretrain.snapshots' names epoch {beyond[0]}, but 'pretrain.recipe.epochs' is "
            f"{epochs}: leave it out, or set 'pretrain.snapshots' to []"
        )


def refuse_seen_images(params: Any) -> None:
    """Raise `ValueError` where a network that comes trained would be scored by its memory."""
    weights = params.pretrain.weights
    # a checkpoint of ours never saw the reward images of its own run
    foreign = weights is not None and not weights.endswith(".safetensors")
    if foreign and params.data.reward_from == "train":
        raise ValueError(
            "'data.reward_from' is train, but the network of 'pretrain.weights' has been "
            "trained on these images and would be scored by its memory: set it to test"
        )


def refuse_too_few_images(params: Any) -> None:
    """Raise `ValueError` where more reward images are asked for than there are."""
    if params.search is None:
        return
    wanted, there = params.search.reward.statistics_images, params.data.reward_images
    if wanted > there:
        raise ValueError(
            f"'search.reward.statistics_images' is {wanted}, expected at most the {there} of "
            "'data.reward_images': set it to 0 for all of them"
        )
    if params.search.reward.race >= there:
        raise ValueError(
            f"'search.reward.race' is {params.search.reward.race}, expected less than the {there} "
            "of 'data.reward_images': lower it, or set it to 0 for no race"
        )


def reward_unlike_prune(params: Any) -> str:
    """Return one sentence where the search scores other subnets than `prune` makes, or empty."""
    search = params.search
    if search is None or search.space != "channels" or search.students or search.reward.training:
        return ""
    if params.prune.compensation == "none" or search.reward.compensation != "none":
        return ""
    return (
        f"'prune.compensation' is {params.prune.compensation}, but the reward scores subnets that "
        "are not repaired: set 'search.reward' to {kind: jensen_shannon, compensation: gram}"
    )


def refuse_no_table(params: Any) -> None:
    """Raise `ValueError` for a budget of latency without a table."""
    search = params.search
    if search is not None and search.budget.latency is not None and search.latency_table is None:
        raise ValueError(
            "'search.budget.latency' needs a table of this machine's latencies: after `extract` "
            "run `python -m stages.latency` and set 'search.latency_table' to its file"
        )


def refuse_unfit_task(params: Any) -> None:
    """Raise `UserError` for settings that need what the task does not have: labels, a reward, a
    teacher.  Imports a task of the user's own."""
    if params.task.name == "classification":
        return
    task, search, train = params.task.build(), params.search, params.train
    if search is not None and search.reward.kind in task.lacks:
        raise UserError(
            f"'search.reward.kind' is {search.reward.kind}, which the task {params.task.name} does "
            "not have: set it to jensen_shannon, squared_error, cosine or accuracy (the task's "
            "metric)"
        )
    if not task.labelled:
        _refuse_labels(params)
    taught = {"train.distillation": train.distillation} if train.recipe.epochs else {}
    if search is not None and search.students is not None:
        taught["search.students.distillation"] = search.students.distillation
    for key, how in taught.items():
        weight = how.alpha if how.weight is None else how.weight
        if not task.labelled and (weight == 0 or (how.weight is None and how.alpha < 1)):
            raise UserError(
                f"'{key}.alpha' is {how.alpha:g}, but the task {params.task.name} has no labels: "
                "set it to 1, so that the teacher's outputs are learned alone"
            )
        if weight and not task.distils:
            raise UserError(
                f"'{key}' asks for a teacher, which the task {params.task.name} does not have: set "
                "alpha to 0 and weight to null"
            )


def _refuse_labels(params: Any) -> None:
    """Raise `UserError` for settings that need labels."""
    search, name = params.search, params.task.name
    if params.pretrain.recipe.epochs:
        raise UserError(
            f"'pretrain.recipe.epochs' is {params.pretrain.recipe.epochs}, but the task {name} has "
            "no labels to train with: set it to 0 and give 'pretrain.weights'"
        )
    if search is None:
        return
    wrong = {
        "search.reward.training": search.reward.training is not None,
        "search.reward.race": search.reward.race > 0,
        f"search.importance {search.importance}": search.importance in NEED_LABELS,
    }
    if found := [key for key, given in wrong.items() if given]:
        raise UserError(
            f"'{found[0]}' needs labels, which the task {name} does not have: leave it out or take "
            "another"
        )


def refuse_wrong_folder(params: Any) -> None:
    """Raise `UserError` where the folder of images does not have a folder per class in each split.

    It takes milliseconds; the stage looks again where it reads the images, as do other tasks than
    classification.
    """
    if params.data.name == "image_folder" and params.task.name.startswith("classification"):
        class_folders(root_of(params.data))


def refuse_missing_files(params: Any, stage: str) -> None:
    """Raise `UserError` where a file that this stage or a later one reads is not there.

    The latency table of the default name may still be measured between `extract` and `search`.
    """
    named = {}
    weights = params.pretrain.weights
    if stage == "pretrain" and weights and not _elsewhere(weights):
        named["pretrain.weights"] = weights
    if params.search is not None:
        named["search.agent_from"] = params.search.agent_from
        if stage == "search" or params.search.latency_table != TABLE:
            named["search.latency_table"] = params.search.latency_table
    for key, name in named.items():
        if name and not user_path(name).is_file():
            raise UserError(f"'{key}': there is no file {name}; name one that is there")


INPUTS = "inputs"  # below it a folder for each stage that reads files of the user's own
TABLE = f"{INPUTS}/search/latency.json"  # what `python -m stages.latency` writes by default


def unwatched(params: Any, stage: str) -> Iterator[str]:
    """Yield a sentence for every file that this stage reads and whose changes DVC would miss."""
    named = {}
    if stage == "pretrain" and (weights := params.pretrain.weights) and not _elsewhere(weights):
        named["pretrain.weights"] = weights
    if stage == "search":
        named["search.agent_from"] = params.search.agent_from
        named["search.latency_table"] = params.search.latency_table
    for key, name in named.items():
        if not name or not Path(name).suffix:  # none, or the agent that comes with the library
            continue
        if not Path(name).as_posix().startswith(f"{INPUTS}/{stage}/"):
            yield (
                f"'{key}' is {name}: DVC notices when it changes only if it is below "
                f"{INPUTS}/{stage}"
            )


def _elsewhere(weights: str) -> bool:
    """Whether weights are no file of this machine: an address, or a name of published ones."""
    return re.match(r"https?://|[A-Z][A-Z0-9_]*$", weights) is not None
