"""The figures of a run that are compared with other runs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from gnnrl.report import summary
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
