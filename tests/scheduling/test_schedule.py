from __future__ import annotations

import pytest

from gnnrl.errors import UserError
from gnnrl.scheduling.schedule import Schedule


def test_the_makespan_is_the_last_end(chain):
    assert Schedule(chain, machine=(1, 1), start=(0.0, 1.0)).makespan == 3.0


@pytest.mark.parametrize(
    ("machine", "start", "message"),
    [
        ((0,), (0.0,), "expected one of each for 2 tasks"),
        ((0, 2), (0.0, 9.0), "task 1 on machine 2 of 0 to 1"),
        ((0, 0), (-1.0, 9.0), "task 0 starts at -1.0"),
        ((0, 1), (0.0, 6.9), "task 1 starts at 6.9 but its data from task 0 arrive at 7"),
        ((0, 0), (0.0, 1.0), "its data from task 0 arrive at 2"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(chain, machine, start, message):
    with pytest.raises(UserError, match=message):
        Schedule(chain, machine, start)


def test_two_tasks_at_once_on_a_machine_are_refused(topcuoglu):
    # tasks 1 to 5 need task 0 only; all start together on machine 2 after it
    machine, start = [2] * 10, [float(100 * task) for task in range(10)]
    start[2] = start[1] + 1.0
    with pytest.raises(UserError, match="tasks 1 and 2 run at once on machine 2"):
        Schedule(topcuoglu, tuple(machine), tuple(start))
