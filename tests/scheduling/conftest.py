"""The ten-task example that the HEFT paper works through, and random problems."""

from __future__ import annotations

import numpy as np
import pytest

from gnnrl.scheduling.dag import JobGraph
from gnnrl.scheduling.machines import Machines, Problem

# Topcuoglu, Hariri and Wu 2002, Table 2 and Fig. 2: tasks numbered from 1, three processors
DURATIONS = (
    (14, 16, 9), (13, 19, 18), (11, 13, 19), (13, 8, 17), (12, 13, 10),
    (13, 16, 9), (7, 15, 11), (5, 11, 14), (18, 12, 20), (21, 7, 16),
)  # fmt: skip
TRANSFERS = {
    (1, 2): 18, (1, 3): 12, (1, 4): 9, (1, 5): 11, (1, 6): 14, (2, 8): 19, (2, 9): 16, (3, 7): 23,
    (4, 8): 27, (4, 9): 23, (5, 9): 13, (6, 8): 15, (7, 10): 17, (8, 10): 11, (9, 10): 13,
}  # fmt: skip


@pytest.fixture
def topcuoglu() -> Problem:
    jobs = JobGraph(
        work=tuple(float(np.mean(row)) for row in DURATIONS),
        edges=tuple((a - 1, b - 1) for a, b in TRANSFERS),
        data=tuple(float(size) for size in TRANSFERS.values()),
        name="topcuoglu",
    )
    machines = Machines.uniform((1.0, 1.0, 1.0), bandwidth=1.0, latency=0.0)
    return Problem(jobs, machines, tuple(tuple(float(v) for v in row) for row in DURATIONS))


@pytest.fixture
def chain() -> Problem:
    """Two tasks in a row; the second machine is twice as fast, sending costs 1 + 4 seconds."""
    jobs = JobGraph(work=(2.0, 4.0), edges=((0, 1),), data=(8.0,), name="chain")
    return Problem(jobs, Machines.uniform((1.0, 2.0), bandwidth=2.0, latency=1.0))
