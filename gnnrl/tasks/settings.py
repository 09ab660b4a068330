"""Which task it is."""

from __future__ import annotations

from typing import Annotated

from gnnrl.settings import Settings, name_in


class TaskSettings(Settings):
    """What the network's outputs mean."""

    name: Annotated[str, name_in("gnnrl.tasks.registry:TASKS")] = "classification"
    """classification, segmentation, outputs or package.module:name."""
