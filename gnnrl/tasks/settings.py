"""Which task it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gnnrl.settings import Settings, name_in

if TYPE_CHECKING:
    from gnnrl.tasks.base import Task


class TaskSettings(Settings):
    """What the network's outputs mean."""

    name: Annotated[str, name_in("gnnrl.tasks.registry:TASKS")] = "classification"
    """classification, classification_top5, segmentation, detection, outputs or
    package.module:name."""

    def build(self) -> Task:
        """Return the task."""
        from gnnrl.tasks.registry import build_task

        return build_task(self.name)
