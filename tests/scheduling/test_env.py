from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_reset_return_type, check_reset_seed_determinism
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnrl.errors import UserError
from gnnrl.rl.checks import Checked
from gnnrl.scheduling.baselines import heft, lookahead_schedule
from gnnrl.scheduling.choices import Choices
from gnnrl.scheduling.env import SchedulingEnv, completed_by_heft
from gnnrl.scheduling.features import WIDTH
from gnnrl.scheduling.generators import erdos_renyi, layered, montage, random_problem
from gnnrl.scheduling.lookahead import Lookahead
from gnnrl.scheduling.partial import PartialSchedule
from gnnrl.scheduling.ranks import by_upward_rank

LOOKAHEAD_MARK, HEFT_MARK = -1, -2  # columns of x


def draw(generator: np.random.Generator):
    return random_problem(int(generator.integers(9, 25)), 3, generator, (layered, montage))


def play(env: SchedulingEnv, choose, seed: int = 0):
    """Rewards, observations and the last info of an episode, every step held to the contract."""
    checked = Checked(env)
    observation, rewards, seen, done, info = checked.reset(seed), [], [], False, {}
    while not done:
        seen.append(observation)
        observation, reward, done, _, info = checked.step(choose(observation))
        rewards.append(reward)
    return rewards, seen, info


def marked(column: int):
    """Choose what a column of the features marks."""
    return lambda seen: int(seen.x[seen.decision_index][:, column].argmax())


def at_random(seed: int):
    generator = np.random.default_rng(seed)
    return lambda seen: int(generator.integers(seen.decision_index.numel()))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_any_actions_make_a_schedule_that_can_run_and_rewards_add_up_to_its_makespan(seed, ahead):
    rewards, seen, info = play(SchedulingEnv(draw, lookahead=ahead), at_random(seed), seed)
    assert len(rewards) == info["plan"].problem.jobs.num_tasks  # one task a step
    assert sum(rewards) == pytest.approx(1 - info["plan"].makespan / info["heft"], abs=1e-9)
    assert info["heft"] == heft(info["plan"].problem).makespan
    assert all(o.x.shape[1] == WIDTH and float(o.x.abs().max()) <= 1.0 for o in seen)


@pytest.mark.parametrize("seed", range(5))
def test_choosing_what_is_marked_as_hefts_choice_is_heft(seed):
    rewards, _, info = play(SchedulingEnv(draw, lookahead=False), marked(HEFT_MARK), seed)
    assert info["plan"].makespan == pytest.approx(info["heft"])
    assert rewards == pytest.approx([0.0] * len(rewards))


@pytest.mark.parametrize("seed", range(5))
def test_choosing_what_is_marked_as_the_lookaheads_is_the_lookahead_baseline(seed):
    _, _, info = play(SchedulingEnv(draw), marked(LOOKAHEAD_MARK), seed)
    baseline = lookahead_schedule(info["plan"].problem).makespan
    assert info["plan"].makespan == pytest.approx(baseline)


def test_the_same_seed_starts_the_same_episode():
    env = SchedulingEnv(draw)
    check_reset_seed_determinism(env)
    check_reset_return_type(env)
    (one, _), (same, _), (other, _) = (env.reset(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.x, same.x) and torch.equal(one.edge_index, same.edge_index)
    assert one.x.shape != other.x.shape or not torch.equal(one.x, other.x)


def test_a_clone_shares_no_episode():
    env = SchedulingEnv(draw)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="scheduling: step before reset"):
        env.clone().step(0)


def test_an_illegal_action_is_refused_with_the_environments_name():
    env = SchedulingEnv(draw)
    observation, _ = env.reset(seed=0)
    choices = observation.decision_index.numel()
    with pytest.raises(ValueError, match=f"scheduling: illegal action: {choices}, expected 0 to"):
        env.step(choices)


def test_a_step_after_the_end_is_refused(chain):
    env = SchedulingEnv(lambda generator: chain)
    env.reset(seed=0)
    env.step(0)
    assert env.step(0)[2]
    with pytest.raises(ValueError, match="scheduling: step before reset"):
        env.step(0)


def test_at_least_one_task_must_be_offered():
    with pytest.raises(UserError, match="most_tasks must be at least 1, got 0"):
        SchedulingEnv(draw, most_tasks=0)


def test_features_do_not_depend_on_the_unit_of_time():
    """Hours or seconds: the same observation."""
    problem = random_problem(12, 3, np.random.default_rng(0))
    seen = [
        SchedulingEnv(draw).reset(seed=0, options={"problem": p})[0]
        for p in (problem, _slower(problem, 60.0))
    ]
    torch.testing.assert_close(seen[0].x, seen[1].x)
    torch.testing.assert_close(seen[0].edge_attr, seen[1].edge_attr)


def _slower(problem, factor: float):
    from dataclasses import replace

    jobs, machines = problem.jobs, problem.machines
    jobs = replace(
        jobs,
        work=tuple(factor * work for work in jobs.work),
        data=tuple(factor * size for size in jobs.data),
    )
    latency = tuple(tuple(factor * delay for delay in row) for row in machines.latency)
    return type(problem)(jobs, replace(machines, latency=latency))


def test_an_observation_has_the_tasks_that_are_left_the_machines_and_the_choices():
    env = SchedulingEnv(lambda generator: random_problem(15, 3, generator, (erdos_renyi,)))
    _, seen, _ = play(env, at_random(0))
    for placed, observation in enumerate(seen):
        choices = observation.decision_index.numel()
        assert observation.x[:, :3].sum(0).tolist() == [15 - placed, 3, choices]
        assert choices % 3 == 0 and observation.x[observation.decision_index, 2].all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_lookahead_is_a_list_scheduler_that_fills_no_gaps(seed):
    """Against the same continuation one task at a time, from a state in mid-schedule."""
    generator = np.random.default_rng(seed)
    problem = random_problem(12, 3, generator)
    partial = PartialSchedule(problem)
    for _ in range(int(generator.integers(0, 11))):
        ready = partial.ready[int(generator.integers(len(partial.ready)))]
        partial.place(ready, int(generator.integers(3)), insertion=False)
    choices = Choices.of(partial, partial.ready)
    found = Lookahead(problem).makespans(partial, choices, np.zeros((1, 12, 3)))[0]
    for at in range(len(choices)):
        rest = partial.copy()
        rest.place(int(choices.task[at]), int(choices.machine[at]))
        assert found[at] == pytest.approx(_appended(rest))


def _appended(rest: PartialSchedule) -> float:
    problem = rest.problem
    for task in by_upward_rank(problem):
        if rest.machine[task] < 0:
            ends = [
                max(rest.available(m), rest.arrival[task][m]) + problem.durations[task][m]
                for m in range(problem.machines.count)
            ]
            rest.place(task, int(np.argmin(ends)), insertion=False)
    return rest.makespan


def test_completing_by_heft_leaves_the_schedule_as_it_was(topcuoglu):
    partial = PartialSchedule(topcuoglu)
    assert completed_by_heft(partial, by_upward_rank(topcuoglu)) == 80.0
    assert partial.ready == [0] and partial.makespan == 0.0
