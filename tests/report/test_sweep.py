"""Experiments as a table."""

from __future__ import annotations

import pandas as pd
import pytest

from gnnrl.errors import UserError
from gnnrl.report import drawing, sweep


def test_numbers_come_in_their_order_before_texts_and_missing_cells_are_empty():
    rows = pd.DataFrame(
        [
            {"agent": "ppo", "budget": 10, "accuracy": 0.5},
            {"agent": "ppo", "budget": 9, "accuracy": 0.25},
            {"agent": "ddpg", "budget": None, "accuracy": 0.75},
            {"agent": "ddpg", "budget": 9, "accuracy": "not measured"},
        ],
        dtype=object,
    )
    assert sweep.table(rows, ["agent"], "budget", "accuracy").splitlines() == [
        "| agent | budget 9 | budget 10 | budget None |",
        "| --- | --- | --- | --- |",
        "| ddpg |  |  | 0.7500 (1) |",
        "| ppo | 0.2500 (1) | 0.5000 (1) |  |",
    ]


def test_parameters_are_named_by_their_path_and_whole_numbers_stay_whole():
    data = {"params": {"params.yaml": {"data": {"search": {"seed": 3, "budget": {"flops": 0.5}}}}}}
    (row,) = sweep.experiments([{"data": data}]).to_dict("records")
    assert row == {"name": "workspace", "search.seed": 3, "search.budget.flops": 0.5}
    assert str(row["search.seed"]) == "3"


def shown(*experiments: dict[str, object]) -> list[dict[str, object]]:
    """Return what DVC shows of experiments: agent, seed, accuracy and reward of each."""
    rows = []
    for number, row in enumerate(experiments):
        params = {"search": {"agent": row["agent"], "seed": row["seed"], "space": "channels"}}
        metrics = {
            "artifacts/evaluate/metrics.json": {"data": {"evaluate": {"accuracy": row["right"]}}},
            "artifacts/search/metrics.json": {"data": {"search": {"reward": row["reward"]}}},
        }
        data = {"params": {"params.yaml": {"data": params}}, "metrics": metrics}
        executor = {"revs": [{"rev": f"rev{number}", "name": f"exp{number}", "data": data}]}
        rows.append({**executor, "name": f"exp{number}", "executor": {"state": "success"}})
    return [{"rev": "workspace", "data": {}, "experiments": rows}]


SWEEP = shown(
    {"agent": "ppo", "seed": 1, "right": 0.90, "reward": -0.10},
    {"agent": "ppo", "seed": 2, "right": 0.94, "reward": -0.12},
    {"agent": "random", "seed": 1, "right": 0.88, "reward": -0.20},
    {"agent": "random", "seed": 2, "right": 0.91, "reward": -0.24},
)


def test_what_differs_is_found_and_seeds_are_averaged_over():
    rows = sweep.experiments(SWEEP)
    assert sweep.varying(rows) == (["search.agent"], ["search.seed"])
    table, tests = sweep.comparison(rows, ["search.agent"]).split("\n\n")
    assert table.splitlines() == [
        "| agent | accuracy | reward | n |",
        "| --- | --- | --- | --- |",
        "| ppo | 0.9200 ± 0.0283 | -0.1100 ± 0.0141 | 2 |",
        "| random | 0.8950 ± 0.0212 | -0.2200 ± 0.0283 | 2 |",
    ]
    assert tests.splitlines()[0] == (
        "evaluate.accuracy: random against ppo -0.0250 ± 0.0071 over 2 seeds, p = 0.13 "
        "(paired t-test)"
    )


def test_no_difference_has_no_minus():
    even = shown(
        {"agent": "ppo", "seed": 1, "right": 0.90, "reward": -0.10},
        {"agent": "ppo", "seed": 2, "right": 0.94, "reward": -0.12},
        {"agent": "random", "seed": 1, "right": 0.91999, "reward": -0.10},
        {"agent": "random", "seed": 2, "right": 0.91999, "reward": -0.12},
    )
    said = sweep.comparison(sweep.experiments(even), ["search.agent"]).split("\n\n")[1]
    assert "random against ppo +0.0000 ± 0.0283 over 2 seeds" in said


def test_figures_that_an_experiment_did_not_compute_are_left_out():
    def computed(revision: str, path: str) -> bool:
        return "evaluate" not in path or revision == "rev0"

    rows = sweep.experiments(SWEEP, computed)
    lines = sweep.comparison(rows, ["search.agent"]).splitlines()
    assert lines[2] == "| ppo | 0.9000 (1) | -0.1100 ± 0.0141 | 2 |"
    assert lines[3] == "| random |  | -0.2200 ± 0.0283 | 2 |"
    assert "accuracy" not in "\n".join(lines[4:])


def test_a_figure_nobody_has_is_refused_with_those_that_are_like_it():
    with pytest.raises(UserError, match=r"no experiment has 'train.accuracy'; .*evaluate.accuracy"):
        sweep.comparison(sweep.experiments(SWEEP), ["search.agent"], ["train.accuracy"])


def test_points_are_named_by_what_differs():
    rows = sweep.experiments(SWEEP)
    rows["evaluate.flops_kept"] = [0.5, 0.4, 0.5, None]
    points = sweep.points(rows, ["search.agent"], "evaluate.accuracy")
    assert points == {"agent ppo": [(0.5, 0.90), (0.4, 0.94)], "agent random": [(0.5, 0.88)]}
    assert drawing.png(drawing.draw_points(points)).startswith(b"\x89PNG")


def test_columns_are_named_so_that_they_differ():
    rows = sweep.experiments(SWEEP)
    rows["reward"] = [0.0, 1.0, 2.0, 3.0]
    head = sweep.comparison(rows, ["search.agent"], ["reward", "search.reward"]).splitlines()[0]
    assert head == "| agent | reward | search.reward | n |"


def test_the_metric_of_another_task_is_shown_under_its_own_name():
    figures = {"metric": "mean_iou", "mean_iou": 0.75, "flops_kept": 0.5}
    metrics = {"artifacts/evaluate/metrics.json": {"data": {"evaluate": figures}}}
    rows = sweep.experiments([{"data": {"params": {}, "metrics": metrics}}])
    assert sweep.figures_of(rows) == ["evaluate.mean_iou", "evaluate.flops_kept"]
    assert sweep.comparison(rows, []).splitlines()[0] == "| name | mean_iou | flops_kept | n |"
