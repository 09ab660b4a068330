"""Tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gnnrl.errors import UserError
from gnnrl.registry import call, is_own, named

if TYPE_CHECKING:
    from gnnrl.tasks.base import Task

TASKS: Mapping[str, str] = {
    "classification": "gnnrl.tasks.classification:Classification",
    "classification_top5": "gnnrl.tasks.classification:top5",
    "segmentation": "gnnrl.tasks.segmentation:Segmentation",
    "detection": "gnnrl.tasks.detection:Detection",
    "outputs": "gnnrl.tasks.outputs:AnyOutputs",
}
"""Where they are, by name; classes of the user's own are named in the same way."""


def build_task(name: str) -> Task:
    """Return the task of a name: a key of TASKS, or `package.module:name` of one's own."""
    from gnnrl.tasks.base import Task

    task = call(named(name, TASKS, "task"), name)
    if is_own(name) and not isinstance(task, Task):
        raise UserError(
            f"{name} gives {type(task).__name__}, expected a gnnrl.tasks.base.Task: subclass it"
        )
    return task
