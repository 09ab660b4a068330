"""The figures of a run that are compared with other runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gnnrl.pruning.importance import l1
from gnnrl.report import contents, summary
from gnnrl.search.spaces.channels import Widths
from gnnrl.search.spaces.joint import JointSpace
from tests.dense import dense
from tests.report.test_contents import run_of


def test_the_headline_figures_are_short_names_and_the_gain_is_that_over_the_best_control():
    run = run_of()
    search = {**run.metrics["search"], "reward": -0.5, "gain_over_allocation": 0.125}
    run = replace(run, metrics={**run.metrics, "search": search})
    assert summary.summary(run) == {
        "accuracy": 0.99, "budget": 0.5, "gain": 0.125, "reward": -0.5,
    }  # fmt: skip
    assert summary.speed(run) == {"speed": 1.2}


def test_what_is_not_known_is_left_out():
    run = replace(run_of(), metrics={}, search={}, latency=None)
    assert summary.summary(run) == {"accuracy": 0.99} and summary.speed(run) == {}


def test_plots_show_both_networks_every_plan_with_its_control_and_every_group():
    run = run_of()
    table = pd.DataFrame(
        {
            "episode": [0, -1, 1],
            "reward": [-0.5, -0.75, -9.0],
            "flops": [50, 25, 10],
            "status": ["ok", "ok", "diverged"],
            "control": [None, "uniform", None],
        }
    )
    run = replace(run, evaluations=table)
    assert [(row["network"], row["flops kept"]) for row in summary.networks(run)] == [
        ("dense", 1.0), ("subnet", 0.499),
    ]  # fmt: skip
    assert summary.plans(run) == [
        {"plan": "searched", "flops kept": 0.5, "reward": -0.5},
        {"plan": "uniform", "flops kept": 0.25, "reward": -0.75},
    ]
    kept = {row["group"]: row["kept"] for row in summary.widths(run)}
    assert list(kept) == [group.name for group in run.graph.groups]
    assert sorted(kept.values())[0] == pytest.approx(0.5) and max(kept.values()) == 1.0


def test_widths_of_a_plan_that_removes_blocks_are_those_of_the_layers_that_are_left():
    network, graph = dense("resnet20")
    space = JointSpace(Widths(graph, l1(network, graph), 0.2))
    action = np.full(space.size, 0.9)
    action[space.names.index("layer2.1")] = 0.0
    plan = space.plan(action)
    assert "layer2.1" in plan.removed_layers
    rows = summary.widths(replace(run_of(), graph=graph, plan=plan))
    kept = {row["group"]: row["kept"] for row in rows}
    assert kept["layer2.0.conv1"] == len(plan.kept["layer2.0.conv1"]) / 32
    assert max(kept.values()) <= 1.0


def test_the_search_is_in_turn_and_of_one_budget_whatever_the_order_of_its_rows():
    rows = pd.DataFrame(
        {
            "episode": [5, 4, 2, 1, 0, -1, 6],
            "reward": [0.9, 0.8, 0.3, 0.6, 0.4, 0.7, -9.0],
            "budget": [0.25, 0.5, 0.5, 0.25, 0.5, 0.5, 0.5],
            "status": [*["ok"] * 6, "diverged"],
        }
    )
    run = replace(run_of(), evaluations=rows)
    assert summary.searched(run) == [
        {"plan": 1, "reward": 0.4, "best": 0.4},
        {"plan": 2, "reward": 0.3, "best": 0.4},
        {"plan": 3, "reward": 0.8, "best": 0.8},
    ]
    one = replace(run, evaluations=rows.drop(columns="budget"))
    assert [row["reward"] for row in summary.searched(one)] == [0.4, 0.6, 0.3, 0.8, 0.9]
    assert [row["best"] for row in summary.searched(one)] == [0.4, 0.6, 0.6, 0.8, 0.9]


def test_a_search_without_evaluations_has_no_plans_to_plot():
    run = replace(run_of(), evaluations=pd.DataFrame())
    tables = summary.tables(run)
    assert tables["plans"] == tables["searched"] == []
    search = next(drawn for drawn in contents.pictures(run, 40) if drawn.name == "search")
    assert not search.on_page


@pytest.mark.parametrize("metric", ["accuracy", "mean_iou"])
def test_tables_for_plots_have_the_same_columns_for_every_task(metric):
    run = run_of()
    figures = {**run.figures, "metric": metric, metric: 0.5, f"dense_{metric}": 0.75}
    histories = {**run.histories, "subnet": pd.DataFrame({f"reward_{metric}": [0.25, 0.5]})}
    tables = summary.tables(replace(run, figures=figures, histories=histories))
    assert tables["networks"] == [
        {"network": "dense", "flops kept": 1.0, "metric": metric, "value": 0.75},
        {"network": "subnet", "flops kept": 0.499, "metric": metric, "value": 0.5},
    ]
    assert tables["epochs_subnet"] == [
        {"epoch": 1, "metric": metric, "value": 0.25},
        {"epoch": 2, "metric": metric, "value": 0.5},
    ]
    assert tables["epochs_dense"] == []  # the network came trained
