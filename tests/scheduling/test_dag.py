from __future__ import annotations

import numpy as np
import pytest

from gnnrl.errors import UserError
from gnnrl.scheduling.dag import JobGraph
from gnnrl.scheduling.machines import Machines, Problem


def test_every_task_comes_after_its_producers():
    jobs = JobGraph((1.0,) * 4, ((3, 1), (1, 0), (2, 0)), (1.0, 1.0, 1.0))
    place = {task: at for at, task in enumerate(jobs.order)}
    assert all(place[producer] < place[consumer] for producer, consumer in jobs.edges)


def test_parents_and_children_are_the_two_ends_of_the_edges():
    jobs = JobGraph((1.0,) * 3, ((0, 2), (1, 2)), (5.0, 7.0))
    assert jobs.parents[2] == ((0, 5.0), (1, 7.0))
    assert jobs.children[0] == ((2, 5.0),) and jobs.children[2] == ()


@pytest.mark.parametrize(
    ("work", "edges", "data", "message"),
    [
        ((), (), (), "at least one task"),
        ((1.0, 0.0), (), (), "work of task 1 must be a number > 0, got 0.0"),
        ((1.0, float("nan")), (), (), "work of task 1 .* got nan"),
        ((1.0, 1.0), ((0, 1),), (), "1 edges but 0 data sizes"),
        ((1.0, 1.0), ((0, 2),), (1.0,), "0 -> 2 names a task that does not exist"),
        ((1.0, 1.0), ((1, 1),), (1.0,), "task 1 cannot wait for itself"),
        ((1.0, 1.0), ((0, 1), (0, 1)), (1.0, 1.0), "0 -> 1 is given twice"),
        ((1.0, 1.0), ((0, 1),), (-1.0,), "data of edge 0 -> 1 is -1.0"),
        ((1.0,) * 3, ((0, 1), (1, 2), (2, 1)), (1.0,) * 3, r"tasks \[1, 2\] wait for each other"),
    ],
)
def test_a_graph_that_is_none_is_refused(work, edges, data, message):
    with pytest.raises(UserError, match=message):
        JobGraph(work, edges, data, name="bad")


@pytest.mark.parametrize(
    ("speeds", "bandwidth", "latency", "message"),
    [
        ((), (), (), "at least one machine"),
        ((1.0, -1.0), ((1, 1), (1, 1)), ((0, 0), (0, 0)), "speeds must be > 0"),
        ((1.0, 1.0), ((1, 1),), ((0, 0), (0, 0)), "bandwidth must be 2 x 2"),
        ((1.0, 1.0), ((1, 0), (1, 1)), ((0, 0), (0, 0)), "bandwidth must be > 0"),
        ((1.0, 1.0), ((1, 1), (1, 1)), ((0, -1), (0, 0)), "latency must be >= 0"),
    ],
)
def test_machines_that_are_none_are_refused(speeds, bandwidth, latency, message):
    with pytest.raises(UserError, match=message):
        Machines(speeds, bandwidth, latency)


def test_a_task_takes_its_work_over_the_speed_and_data_their_latency_and_size(chain):
    assert chain.duration_table.tolist() == [[2.0, 1.0], [4.0, 2.0]]
    assert chain.transfer(8.0, 0, 1) == 1.0 + 8.0 / 2.0
    assert chain.transfer(8.0, 1, 1) == 0.0


def test_durations_of_another_shape_are_refused(chain):
    with pytest.raises(
        UserError, match=r"durations are \(1, 2\), expected \(2 tasks, 2 machines\)"
    ):
        Problem(chain.jobs, chain.machines, ((1.0, 2.0),))


def test_a_single_machine_sends_nothing():
    alone = Problem(JobGraph((3.0, 1.0), ((0, 1),), (9.0,)), Machines.uniform((1.0,), 1.0, 0.0))
    assert alone.mean_transfer(9.0) == 0.0
    assert np.allclose(alone.duration_table, [[3.0], [1.0]])
