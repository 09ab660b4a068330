"""The schedule of asynchronous workers, by itself and with drawn times for many of them."""

from __future__ import annotations

import pytest

from benchmarks.ray_workers import simulate
from gnnrl.errors import UserError
from gnnrl.search.parallel.update_schedule import Schedule


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bound", [4, 8, 64])
def test_64_workers_are_busy_and_no_gradient_is_staler_than_its_bound(seed, bound):
    found = simulate(64, 20 * 64, bound, seed)
    assert found.efficiency >= 0.7
    assert found.max_staleness <= bound
    assert found.gradients == 20 * 64


def test_with_a_bound_of_zero_all_workers_wait_for_the_slowest():
    found = simulate(64, 20 * 64, 0)
    assert found.max_staleness == 0 and found.updates == 20
    assert found.efficiency < simulate(64, 20 * 64, 8).efficiency


@pytest.mark.parametrize("bound", [0, 1, 8])
def test_with_one_worker_an_update_follows_every_call(bound):
    schedule = Schedule(bound)
    for key in range(5):
        assert schedule.may_start()
        schedule.start(key)
        schedule.finish(key)
        assert schedule.update() == [(key, 0)]
    assert schedule.version == 5


def test_an_update_waits_for_a_straggler_and_takes_all_that_has_come():
    schedule = Schedule(1)
    schedule.start("slow")
    for key in "abc":
        schedule.start(key)
        schedule.finish(key)
        if key == "a":
            assert schedule.update() == [("a", 0)]
        else:  # a second update would make the slow one two updates stale
            assert schedule.update() == [] and schedule.may_start()
    schedule.finish("slow")
    assert schedule.update() == [("b", 0), ("c", 0), ("slow", 1)]


def test_a_bound_below_zero_is_refused():
    with pytest.raises(UserError, match="max_staleness -1"):
        Schedule(-1)
