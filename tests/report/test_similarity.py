"""How alike plans are: by hand, by chance, and as the command writes it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.masks import packed
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report.similarity import by_chance, names_of, similarities
from stages import similarity


@pytest.fixture(scope="module")
def graph() -> ComputationalGraph:
    network = build_network("basic_cnn_eighth", 10, (1, 20, 20)).eval()
    return extract(network, torch.zeros(1, 1, 20, 20))


def half(first: int) -> PruningPlan:
    return PruningPlan({"conv1": tuple(range(first, first + 4))})


def test_plans_are_as_alike_as_what_both_keep_over_what_either_keeps(graph):
    plans = [half(0), half(0), half(2), half(4)]
    found = similarities(graph, plans)
    rest = graph.num_units - 8  # kept by all
    assert found[0] == pytest.approx([1, 1, (rest + 2) / (rest + 6), rest / (rest + 8)])
    assert np.array_equal(found, found.T)


def test_masks_are_compared_weight_by_weight_and_random_ones_are_alike_by_chance(graph):
    drawn = torch.Generator().manual_seed(0)
    masks = [torch.rand(8 * 9, generator=drawn).numpy() < 0.5 for _ in range(6)]
    plans = [PruningPlan(masks={"conv1": packed(mask)}) for mask in masks]
    found = similarities(graph, plans)
    assert found[0, 1] == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
    mean = (found.sum() - 6) / 30
    assert mean == pytest.approx(by_chance(graph, plans), abs=0.05)


def test_where_plans_decide_channels_and_weights_both_count(graph):
    drawn = torch.Generator().manual_seed(0)
    masks = [torch.rand(8 * 9, generator=drawn).numpy() < 0.5 for _ in range(3)]
    channels = [PruningPlan({"conv2": tuple(range(first, first + 8))}) for first in (0, 0, 4)]
    weights = [PruningPlan(masks={"conv1": packed(mask)}) for mask in masks]
    both = [PruningPlan(kept=a.kept, masks=b.masks) for a, b in zip(channels, weights, strict=True)]
    parts = similarities(graph, channels), similarities(graph, weights)
    assert parts[0][0, 1] == 1 and parts[0][0, 2] < 1
    assert similarities(graph, both) == pytest.approx((parts[0] + parts[1]) / 2)
    expected = (by_chance(graph, channels) + by_chance(graph, weights)) / 2
    assert by_chance(graph, both) == pytest.approx(expected)


@pytest.mark.parametrize(
    "more", [PruningPlan(weight_sparsity={"conv1": 0.5}), PruningPlan(kernels={"conv1": 1})]
)
def test_plans_that_do_not_say_which_weights_they_keep_are_refused(graph, more):
    with pytest.raises(UserError, match="a plan with weight_sparsity or kernels"):
        similarities(graph, [half(0), more])


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.json", "a/y.json"], ["x", "y"]),
        (["a/x.json", "b/x.json"], ["a", "b"]),
        (["a/x.json", "a/y.json", "b/x.json"], ["a/x", "a/y", "b/x"]),
    ],
)
def test_every_plan_has_a_name_of_its_own(files, names):
    assert names_of([Path(file) for file in files]) == names


def test_a_plan_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="named twice"):
        names_of([Path("a/x.json"), Path("a/../a/x.json")])


def test_the_command_writes_a_table_and_a_picture(graph, tmp_path: Path):
    graph.save(tmp_path / "graph.json")
    files = []
    for name, first in (("seed0", 0), ("seed1", 4)):
        files.append(tmp_path / name / "plan.json")
        files[-1].parent.mkdir()
        half(first).save(files[-1], graph.digest)
    words = [*files, "--graph", tmp_path / "graph.json", "--out", tmp_path / "s.csv"]
    words += ["--picture", tmp_path / "s.png"]
    result = CliRunner().invoke(similarity.app, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("similarity: 2 plans, mean 0.9")
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [row["plan"] for row in rows] == ["seed0", "seed1"]  # as far as folders differ
    assert float(rows[0][rows[0]["plan"]]) == 1.0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    alone = CliRunner().invoke(similarity.app, [str(files[0])])
    assert alone.exit_code == 1 and "got 1 plan, expected two or more" in alone.stderr
