from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnrl.errors import UserError
from gnnrl.scheduling.baselines import critical_path, heft, random_schedule
from gnnrl.scheduling.compare import BASELINES
from gnnrl.scheduling.dag import JobGraph
from gnnrl.scheduling.exact import optimum
from gnnrl.scheduling.generators import random_problem
from gnnrl.scheduling.machines import Machines, Problem
from gnnrl.scheduling.ranks import by_upward_rank, downward_rank, optimistic_cost, upward_rank


def test_upward_ranks_are_those_of_the_paper(topcuoglu):
    # Topcuoglu et al. 2002, Table 3
    ranks = (108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667)
    np.testing.assert_allclose(upward_rank(topcuoglu), ranks, atol=1e-3)


def test_downward_ranks_are_those_of_the_paper(topcuoglu):
    ranks = (0.0, 31.0, 25.0, 22.0, 24.0, 27.0, 62.333, 66.667, 63.667, 93.333)
    np.testing.assert_allclose(downward_rank(topcuoglu), ranks, atol=1e-3)


def test_heft_reaches_the_makespan_of_the_paper(topcuoglu):
    assert heft(topcuoglu).makespan == 80.0


def test_the_critical_path_scheduler_reaches_the_makespan_of_the_paper(topcuoglu):
    assert critical_path(topcuoglu).makespan == 86.0


def test_the_optimum_of_the_papers_example_is_known(topcuoglu):
    assert optimum(topcuoglu).makespan == 73.0


def test_the_optimistic_cost_of_a_chain_by_hand(chain):
    # after task 0: 4 s here, or 1 + 4 s to send and 2 s there; from the fast machine 2 s
    assert optimistic_cost(chain).tolist() == [[4.0, 2.0], [0.0, 0.0]]


def test_on_one_machine_every_order_takes_the_sum_of_work():
    jobs = JobGraph((1.0, 2.0, 3.0), ((0, 2),), (5.0,))
    alone = Problem(jobs, Machines.uniform((1.0,), 1.0, 0.0))
    assert {rule(alone).makespan for rule in (*BASELINES.values(), optimum)} == {6.0}


problems = st.builds(
    lambda seed, tasks, machines: random_problem(tasks, machines, np.random.default_rng(seed)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 4),
)


@settings(max_examples=40, deadline=None)
@given(problems)
def test_every_scheduler_makes_schedules_that_can_run_and_respect_the_critical_path(problem):
    # building a Schedule checks precedence and overlap
    fastest = Problem(
        JobGraph(problem.jobs.work, problem.jobs.edges, (0.0,) * len(problem.jobs.edges)),
        Machines.uniform((max(problem.machines.speeds),), 1.0, 0.0),
    )
    longest_chain = upward_rank(fastest).max()
    schedules = [rule(problem) for rule in BASELINES.values()]
    schedules.append(random_schedule(problem, np.random.default_rng(0)))
    assert min(schedule.makespan for schedule in schedules) >= longest_chain - 1e-9


@settings(max_examples=25, deadline=None)
@given(problems)
def test_the_order_by_upward_rank_is_topological(problem):
    place = {task: at for at, task in enumerate(by_upward_rank(problem))}
    assert all(place[producer] < place[consumer] for producer, consumer in problem.jobs.edges)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 3))
def test_nothing_beats_the_optimum(seed, tasks, machines):
    problem = random_problem(tasks, machines, np.random.default_rng(seed))
    best = optimum(problem).makespan
    assert all(rule(problem).makespan >= best - 1e-9 for rule in BASELINES.values())
    drawn = [random_schedule(problem, np.random.default_rng(n)).makespan for n in range(30)]
    assert min(drawn) >= best - 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_the_optimum_is_the_best_of_all_schedules_there_are(seed):
    """An oracle that cuts nothing: every order of the tasks, every machine for each."""
    problem = random_problem(4, 2, np.random.default_rng(seed))
    assert optimum(problem).makespan == pytest.approx(_by_enumeration(problem), abs=1e-12)


def _by_enumeration(problem: Problem) -> float:
    from itertools import permutations, product

    jobs, best = problem.jobs, float("inf")
    for order in permutations(range(jobs.num_tasks)):
        place = {task: at for at, task in enumerate(order)}
        if any(place[a] > place[b] for a, b in jobs.edges):
            continue
        for where in product(range(problem.machines.count), repeat=jobs.num_tasks):
            free, ends = [0.0] * problem.machines.count, {}
            for task in order:
                start = free[where[task]]
                for parent, size in jobs.parents[task]:
                    sent = ends[parent] + problem.transfer(size, where[parent], where[task])
                    start = max(start, sent)
                free[where[task]] = ends[task] = start + problem.durations[task][where[task]]
            best = min(best, max(ends.values()))
    return best


def test_exact_search_refuses_what_would_take_hours():
    problem = random_problem(13, 2, np.random.default_rng(0))
    with pytest.raises(UserError, match="13 tasks are too many for exact search"):
        optimum(problem)
