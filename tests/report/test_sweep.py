"""Experiments as a table."""

from __future__ import annotations

import pandas as pd

from gnnrl.report import sweep


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
