from __future__ import annotations

import numpy as np
import pytest

from gnnrl.errors import UserError
from gnnrl.scheduling.generators import (
    erdos_renyi,
    fft,
    gaussian_elimination,
    held_out,
    layered,
    machines,
    montage,
    random_problem,
)


@pytest.mark.parametrize("kind", [layered, erdos_renyi, montage])
@pytest.mark.parametrize("tasks", [10, 11, 50, 200])
def test_a_graph_has_the_tasks_asked_for(kind, tasks):
    assert kind(tasks, np.random.default_rng(0)).num_tasks == tasks


@pytest.mark.parametrize("size", [2, 5, 10])
def test_gaussian_elimination_has_the_tasks_of_the_paper(size):
    jobs = gaussian_elimination(size, np.random.default_rng(0))
    assert jobs.num_tasks == (size**2 + size - 2) // 2
    assert sum(not parents for parents in jobs.parents) == 1  # the first pivot
    assert sum(not children for children in jobs.children) == 1  # the last update


@pytest.mark.parametrize("points", [2, 4, 16])
def test_fft_has_the_tasks_of_the_paper_and_two_producers_a_butterfly(points):
    jobs = fft(points, np.random.default_rng(0))
    calls, stages = 2 * points - 1, points.bit_length() - 1
    assert jobs.num_tasks == calls + points * stages
    assert {len(parents) for parents in jobs.parents[calls:]} == {2}


def test_montage_ends_in_one_picture():
    jobs = montage(50, np.random.default_rng(0))
    assert [len(children) for children in jobs.children].count(0) == 1


@pytest.mark.parametrize("kind", [layered, erdos_renyi, montage, gaussian_elimination])
def test_transfers_cost_ccr_times_a_task(kind):
    jobs = kind(40, np.random.default_rng(0), 2.0)
    assert np.mean(jobs.data) / np.mean(jobs.work) == pytest.approx(2.0, rel=0.2)


def test_the_same_seed_draws_the_same_problem_and_another_seed_another():
    one, same, other = (random_problem(20, 4, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == same and one != other


def test_held_out_problems_are_all_different_and_of_the_size_asked_for():
    problems = held_out(20, 15, 3, seed=0)
    assert len({problem.jobs.work for problem in problems}) == 20
    assert {(p.jobs.num_tasks, p.machines.count) for p in problems} == {(15, 3)}


def test_lines_between_machines_are_the_same_both_ways():
    drawn = machines(4, np.random.default_rng(0))
    for table in (drawn.bandwidth, drawn.latency):
        assert np.array_equal(np.array(table), np.array(table).T)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: layered(0, g), "layered: size must be at least 1, got 0"),
        (lambda g: fft(6, g), "power of two, got 6"),
        (lambda g: montage(8, g), "montage: size must be at least 9, got 8"),
        (lambda g: erdos_renyi(5, g, -1.0), "ccr must be >= 0, got -1.0"),
    ],
)
def test_sizes_that_make_no_graph_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make(np.random.default_rng(0))
