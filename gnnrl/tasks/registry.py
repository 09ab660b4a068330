"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gnnrl.errors import UserError
from gnnrl.registry import call, is_own, named
from gnnrl.tasks.base import Task
from gnnrl.tasks.classification import Classification
from gnnrl.tasks.detection import Detection
from gnnrl.tasks.outputs import AnyOutputs
from gnnrl.tasks.segmentation import Segmentation

TASKS: Mapping[str, Callable[[], Task]] = {
    "classification": Classification,
    "classification_top5": partial(Classification, best=5),
    "segmentation": Segmentation,
    "detection": Detection,
    "outputs": AnyOutputs,
}
"""By name, as are classes of the user's own."""


def build_task(name: str) -> Task:
    """Return the task of a name: a key of TASKS, or `package.module:name` of one's own."""
    task = call(named(name, TASKS, "task"), name)
    if is_own(name) and not isinstance(task, Task):
        raise UserError(
            f"{name} gives {type(task).__name__}, expected a gnnrl.tasks.base.Task: subclass it"
        )
    return task
