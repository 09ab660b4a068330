"""The gain and overhead of Ray workers, with evaluations that sleep; and 64 workers, simulated.

    python -m benchmarks.ray_workers
    python -m benchmarks.ray_workers --simulate 64

The first needs the extra `ray`. It prints evaluations per second of one and of two workers after
both have started, and the time per evaluation beyond what it takes in this process. The second
simulates: it draws the times of evaluations (log-normal) and runs only the update schedule of
`a3c`.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gnnrl.search.parallel.update_schedule import Schedule


@dataclass(frozen=True)
class Simulated:
    """efficiency: share of the workers' time that went into evaluations.

    staleness: the largest, and the mean, of all gradients when they were applied.
    """

    efficiency: float
    max_staleness: int
    mean_staleness: float
    updates: int
    gradients: int


def simulate(
    workers: int,
    tasks: int,
    max_staleness: int,
    seed: int = 0,
    *,
    mean: float = 60.0,
    spread: float = 0.6,
    learner: float = 0.03,
    latency: float = 0.01,
) -> Simulated:
    """Let `tasks` evaluations go by on so many workers; times in seconds.

    mean, spread: of an evaluation; spread is the deviation of its logarithm.  learner: what one
    gradient takes the learner, which does one thing at a time.  latency: of every message.
    """
    drawn, schedule = random.Random(seed), Schedule(max_staleness)
    times = [drawn.lognormvariate(math.log(mean) - spread**2 / 2, spread) for _ in range(tasks)]
    going: list[tuple[float, int]] = []
    started, now, free = 0, 0.0, workers
    ages: list[int] = []
    while started < tasks or going:
        while free and started < tasks and schedule.may_start():
            schedule.start(started)
            heapq.heappush(going, (now + latency + times[started] + latency, started))
            started, free = started + 1, free - 1
        arrived, which = heapq.heappop(going)
        now = max(now, arrived) + learner
        free += 1
        schedule.finish(which)
        ages += [age for _, age in schedule.update()]
        updates = schedule.version
    return Simulated(
        sum(times) / (workers * now), max(ages), sum(ages) / len(ages), updates, len(ages)
    )


class Sleeping:
    """An evaluator that sleeps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, plans: Sequence[int]) -> list[object]:
        """Sleep for each plan."""
        from gnnrl.evaluation.base import Evaluation

        time.sleep(self.seconds * len(plans))
        return [Evaluation(float(plan)) for plan in plans]


def measured(workers: int, evaluations: int, seconds: float) -> float:
    """Return the seconds that sleeping evaluations take on so many workers that have started."""
    from gnnrl.search.env import PruningEnv
    from gnnrl.search.parallel.ray import ray_workers
    from gnnrl.search.parallel.settings import RaySettings
    from gnnrl.search.parallel.workers import Shared, evaluate_plans, evaluations_of

    env = PruningEnv.__new__(PruningEnv)
    env.evaluate = Sleeping(seconds)  # of an environment only this is called
    with ray_workers(Shared(env), RaySettings(workers=workers)) as pool:
        assert pool is not None
        pool.all_started()
        for worker in range(workers):  # the first call brings the function
            pool.submit(worker, evaluate_plans, [])
        assert [pool.completed()[1] for _ in range(workers)] == [[]] * workers
        began = time.perf_counter()
        found = dict(evaluations_of(env.evaluate, range(evaluations), pool))
        taken = time.perf_counter() - began
    assert [found[i].reward for i in range(evaluations)] == list(range(evaluations))
    return taken


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one evaluation")
    parser.add_argument("--simulate", type=int, help="workers, on paper")
    parser.add_argument("--max-staleness", type=int, default=8)
    options = parser.parse_args()
    if options.simulate:
        for bound in (0, options.max_staleness):
            found = simulate(options.simulate, 20 * options.simulate, bound)
            print(
                f"{options.simulate} workers, {found.gradients} evaluations, bound {bound}: "
                f"efficiency {found.efficiency:.1%}, staleness at most {found.max_staleness} "
                f"(mean {found.mean_staleness:.2f}), {found.updates} updates"
            )
        return
    began = time.perf_counter()
    for plan in range(options.evaluations):
        Sleeping(options.seconds)([plan])
    here = time.perf_counter() - began
    one, two = (measured(n, options.evaluations, options.seconds) for n in (1, 2))
    print(
        f"{options.evaluations} evaluations of {options.seconds:g} s: this process {here:.2f} s, "
        f"1 worker {one:.2f} s, 2 workers {two:.2f} s, throughput {one / two:.2f}x, "
        f"overhead {1000 * (one - here) / options.evaluations:.1f} ms per evaluation"
    )


if __name__ == "__main__":
    main()
