"""Several experiments by one command, with numbered names."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from gnnrl.errors import UserError
from stages import _dvc, queue

SWEEP = ("-S", "search.budget.sparsity=0.5,0.6", "-S", "search.weights=initial,1")


def test_every_combination_is_an_experiment_with_a_number(monkeypatch):
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(_dvc, "run", lambda *words, settings=None: asked.append(words) or "")
    result = CliRunner().invoke(queue.app, ["early", *SWEEP, "--first", "9"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "early-09: search.budget.sparsity=0.5 search.weights=initial",
        "early-10: search.budget.sparsity=0.5 search.weights=1",
        "early-11: search.budget.sparsity=0.6 search.weights=initial",
        "early-12: search.budget.sparsity=0.6 search.weights=1",
    ]
    assert asked[1] == (
        *("exp", "run", "--queue", "-n", "early-10"),
        *("-S", "search.budget.sparsity=0.5", "-S", "search.weights=1"),
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[[1,2],[3,4]],[[5,6]]", ["[[1,2],[3,4]]", "[[5,6]]"]),
        ("{b: [1,2], c: {d: 3}},null", ["{b: [1,2], c: {d: 3}}", "null"]),
        ("[],1", ["[]", "1"]),
    ],
)
def test_commas_in_brackets_of_any_depth_end_no_value(text, parts):
    assert _dvc.combinations([f"a={text}"]) == [[f"a={part}"] for part in parts]


@pytest.mark.parametrize("text", ["1,,2", ",1", "1,", "1, ,2"])
def test_an_empty_value_is_refused(text):
    with pytest.raises(UserError, match=f"-S a={text} has an empty value"):
        _dvc.combinations([f"a={text}"])


def test_lists_are_one_value_and_nonsense_is_said():
    shown = ["early", "-S", "network.input_shape=[3,32,32]", "--show"]
    assert CliRunner().invoke(queue.app, shown).stdout.startswith("early-1: network.input_shape=[3")
    wrong = CliRunner().invoke(queue.app, ["early", "-S", "search.seed", "--show"])
    assert wrong.exit_code == 1 and "-S wants section.key=value,value" in wrong.stderr
