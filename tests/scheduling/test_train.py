"""Learning, the comparison, the command and its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from gnnrl.errors import UserError
from gnnrl.scheduling.baselines import heft
from gnnrl.scheduling.compare import Row, agent_schedules, best_of, mean_makespans
from gnnrl.scheduling.generators import held_out
from gnnrl.scheduling.report import measured
from gnnrl.scheduling.settings import load_settings
from gnnrl.scheduling.train import build_agent, build_env, held_out_rows, relative
from stages.schedule import app, train

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "examples" / "scheduling" / "params.yaml"
QUICK = {"smallest": 5, "largest": 8, "machines": 2, "kinds": ["layered"], "batch": 8}
FEW = {"episodes": 8, "test_problems": 2, "test_tasks": 9, "large_tasks": 12, "tiny_tasks": 4}


def quick(**changes):
    return load_settings(PARAMS).model_copy(update=QUICK | changes)


@pytest.mark.slow
def test_an_agent_that_sees_no_lookahead_learns_to_schedule_almost_like_heft():
    settings = quick(lookahead=False, episodes=320, batch_size=64, learning_rate=3e-3)
    trained = train(settings).agent
    env = build_env(settings)
    untrained = build_agent(settings, env)
    problems = held_out(30, 8, 2, seed=5)
    reference = np.mean([heft(problem).makespan for problem in problems])
    before, after = (
        np.mean([s.makespan for s in agent_schedules(agent, env, problems)]) / reference
        for agent in (untrained, trained)
    )
    assert after < 1.05 and after < before - 0.1


def test_the_same_seed_trains_the_same_agent():
    one, two = (train(quick(episodes=16)) for _ in range(2))
    assert one.history == two.history
    for name, weights in one.agent.state_dict()["policy"].items():
        assert torch.equal(weights, two.agent.state_dict()["policy"][name])


def test_drawing_more_schedules_is_never_worse():
    settings = quick()
    env = build_env(settings)
    agent, problems = build_agent(settings, env), held_out(3, 8, 2, seed=1)
    greedy, few, many = (
        [s.makespan for s in best_of(agent, env, problems, samples, seed=0)]
        for samples in (0, 2, 6)
    )
    assert greedy == [s.makespan for s in agent_schedules(agent, env, problems)]
    assert all(g >= f >= m for g, f, m in zip(greedy, few, many, strict=True))


def test_schedules_built_side_by_side_are_those_built_alone():
    settings = quick()
    env = build_env(settings)
    agent, problems = build_agent(settings, env), held_out(3, 8, 2, seed=1)
    together = agent_schedules(agent, env, problems)
    assert together == [agent_schedules(agent, env, [problem])[0] for problem in problems]


def test_one_agent_serves_graphs_and_machines_of_any_number():
    settings = quick()
    env = build_env(settings)
    agent = build_agent(settings, env)
    problems = [*held_out(1, 30, 5, seed=1), *held_out(1, 3, 1, seed=1)]
    assert [s.problem for s in agent_schedules(agent, env, problems)] == problems


def test_means_are_over_problems_and_relative_to_one_scheduler():
    rows = [Row(0, "a", 2.0, 1.0), Row(1, "a", 4.0, 1.0), Row(0, "b", 1.0, 1.0)]
    assert mean_makespans(rows) == {"b": 1.0, "a": 3.0}
    assert relative(rows, "b") == {"b": 1.0, "a": 3.0}


def test_held_out_rows_compare_all_on_the_same_problems():
    settings = quick(test_problems=3)
    rows = held_out_rows(settings, build_agent(settings, build_env(settings)), 6)
    names = {"agent", "fifo", "random", "critical_path", "heft", "peft", "lookahead"}
    assert {row.scheduler for row in rows} == names and len(rows) == 3 * len(names)
    assert all(row.ratio == 1.0 for row in rows if row.scheduler == "heft")


def test_the_command_writes_what_it_measured(tmp_path):
    params = tmp_path / "params.yaml"
    values = yaml.safe_load(PARAMS.read_text())["schedule"] | QUICK | FEW
    params.write_text(yaml.safe_dump({"schedule": values}))
    output = tmp_path / "out"
    done = CliRunner().invoke(app, ["--params", str(params), "--output", str(output)])
    assert done.exit_code == 0, done.output
    figures = json.loads((output / "metrics.json").read_text())["schedule"]
    assert figures["over_heft_9_tasks"]["heft"] == 1.0
    assert figures["over_optimum_4_tasks"]["optimum"] == 1.0
    assert min(figures["over_optimum_4_tasks"].values()) == 1.0
    rows = list(csv.DictReader((output / "makespans.csv").open()))
    graphs = {"9_tasks", "12_tasks", "4_tasks", "gaussian_elimination", "fft"}
    assert {row["graphs"] for row in rows} == graphs
    assert torch.load(output / "agent.pt", weights_only=True)["policy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smallest": 9, "largest": 5}, "smallest 9 is more than largest 5"),
        ({"episodes": 0}, "'schedule.episodes' must be at least 1, got 0"),
        ({"kinds": ["ring"]}, "'schedule.kinds.0' must be one of .* got 'ring'"),
        ({"speed": 1}, "unknown key 'schedule.speed'"),
    ],
)
def test_bad_parameters_are_one_sentence(tmp_path, change, message):
    params = tmp_path / "params.yaml"
    values = yaml.safe_load(PARAMS.read_text())["schedule"] | change
    params.write_text(yaml.safe_dump({"schedule": values}))
    with pytest.raises(UserError, match=message):
        load_settings(params)
    refused = CliRunner().invoke(app, ["--params", str(params)])
    assert refused.exit_code == 1 and "Traceback" not in refused.output


@pytest.mark.slow
def test_the_trained_scheduler_reaches_its_targets():
    """Better than HEFT on 50 tasks, near the optimum on 8, no worse than HEFT + 5 % on 200."""
    settings = load_settings(PARAMS)
    figures, _ = measured(settings, train(settings).agent)
    medium, large = figures["over_heft_50_tasks"], figures["over_heft_200_tasks"]
    assert medium["agent"] <= 1.0
    assert medium["agent"] < min(medium[name] for name in ("critical_path", "fifo", "random"))
    assert large["agent"] <= 1.05
    assert figures["over_optimum_8_tasks"]["agent"] <= 1.03
