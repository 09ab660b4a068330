"""What can be decided in one state of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnnrl.scheduling.partial import PartialSchedule


@dataclass(frozen=True, eq=False)
class Choices:
    """A ready task on a machine, as early as it fits there: [C] each, tasks in the order given."""

    task: np.ndarray
    machine: np.ndarray
    start: np.ndarray
    finish: np.ndarray

    @classmethod
    def of(cls, partial: PartialSchedule, tasks: list[int]) -> Choices:
        """Each of these tasks on every machine, the machines of one task next to each other."""
        durations = partial.problem.duration_table
        count = durations.shape[1]
        task, machine = np.repeat(tasks, count), np.tile(np.arange(count), len(tasks))
        start = np.array([partial.earliest_start(t, m) for t in tasks for m in range(count)])
        return cls(task, machine, start, start + durations[task, machine])

    def __len__(self) -> int:
        """How many there are."""
        return len(self.task)
