"""The settings of the benchmark of early compression, and the lines of its table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.early_compression import cifar10, digits, found, perceptron, pretrained
from benchmarks.early_compression_table import named, table
from gnnrl.data.load import load_data


def test_the_thesiss_recipe_is_shortened_in_proportion(tmp_path: Path):
    recipe = cifar10(tmp_path, 6).recipe
    assert recipe.milestones == (2, 4) and recipe.weight_decay == 1e-4 and not recipe.nesterov


@pytest.mark.parametrize("setting", [digits(1), perceptron(1)], ids=["filters", "weights"])
def test_a_criterion_costs_one_plan_however_many_images_score_it(setting):
    splits = load_data(setting.data.changed(reward_images=1024), setting.shape)
    dense = pretrained(setting, splits, (), seed=0)
    _, figures = found(setting, dense, splits, "magnitude_local", 0.5, 1, 0, 8)
    assert figures["plans"] == 1


def test_weights_between_the_first_and_the_last_epoch_have_lines_of_their_own():
    rows = pd.DataFrame(
        [
            {"network": "basic_cnn_quarter", "method": method, "snapshot": snapshot, "epochs": 6,
             "sparsity": 0.5, "seed": seed, "accuracy": 0.3 + 0.1 * seed}
            for method, snapshot in (("random", 0), ("annealing", 3), ("annealing", 6))
            for seed in (0, 1)
        ]
    )  # fmt: skip
    lines = ["random, initial", "annealing, epoch 3", "annealing, late"]
    assert list(dict.fromkeys(named(rows)["line"])) == lines
    made = table(rows, thesis=True)
    assert "| annealing, epoch 3 | 35.00 ± 7.07 [79.48] | +0.00 ± 0.00 (2) | the same |" in made
