"""A plan is a value: frozen, the same bytes for the same content, and nonsense is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gnnrl.errors import UserError
from gnnrl.pruning.plan import PruningPlan

PLAN = PruningPlan({"b": (0, 2), "a": (1,)}, frozenset({"c"}), {"d": 0.5})


def test_saving_and_loading_gives_the_same_plan_and_the_same_bytes(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "one.json")
    loaded = PruningPlan.load(tmp_path / "one.json")
    loaded.save(tmp_path / "two.json")
    assert loaded == PLAN and hash(loaded) == hash(PLAN)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_the_order_of_layers_does_not_matter() -> None:
    other = PruningPlan({"a": [1], "b": [0, 2]}, frozenset({"c"}), {"d": 0.5})
    assert other == PLAN and other.digest == PLAN.digest


def test_plans_can_be_sent_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(PLAN)) == PLAN


@pytest.mark.parametrize("kept", [(), (-1,), (1, 1), (2, 1)])
def test_indices_that_name_no_channels_are_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="layer 'conv'"):
        PruningPlan({"conv": kept})


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_sparsity_outside_zero_and_one_is_refused(sparsity: float) -> None:
    with pytest.raises(UserError, match=r"\[0, 1\)"):
        PruningPlan(weight_sparsity={"conv": sparsity})


def test_a_layer_cannot_be_removed_and_kept() -> None:
    with pytest.raises(UserError, match="removed and kept"):
        PruningPlan({"conv": (0,)}, frozenset({"conv"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"kept": 3}',
        '{"kept": {"a": "x"}}',
        '{"kept": {"a": [1.5]}}',
        '{"kept": {"a": [[0]]}}',
        '{"kept": {"a": [0]}, "more": 1}',
        '{"kept": {}, "removed_layers": 5}',
        '{"kept": {}, "removed_layers": "conv1"}',
        '{"kept": {}, "weight_sparsity": {"a": "x"}}',
        '{"kept": {}, "weight_sparsity": [1]}',
        "\x80\x81",
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"plan\.json") as caught:
        PruningPlan.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.search"):
        PruningPlan.load(tmp_path / "none.json")
