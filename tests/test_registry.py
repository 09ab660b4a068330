"""Names become things: ours, or the user's own code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gnnrl.errors import UserError
from gnnrl.registry import call, named, own_files

TABLE = {"l1": abs, "l2": max}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, in the folder that is run in."""
    monkeypatch.delitem(sys.modules, "own_named_things", raising=False)
    (tmp_path / "own_named_things.py").write_text("def score(x):\n    return 2 * x\n\nlimit = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "own_named_things.py"


def test_a_name_of_the_table_and_one_of_the_users_module(own):
    assert named("l1", TABLE, "importance") is abs
    assert named("own_named_things:score", TABLE, "importance")(2) == 4


@pytest.mark.parametrize(
    "name, said",
    [
        ("ll2", "there is no importance 'll2'; did you mean l2?"),
        ("zzz", "known are l1, l2 and package.module:name of your own"),
        ("no.such:thing", r"cannot import 'no.such' for the importance .*is it installed"),
        (":thing", "cannot import ''"),
        ("own_named_things:scores", "has no function or class 'scores'.*did you mean score?"),
        ("own_named_things:limit", "has no function or class 'limit'"),
    ],
)
def test_what_cannot_be_found_is_named_with_what_is_like_it(own, name, said):
    with pytest.raises(UserError, match=said):
        named(name, TABLE, "importance")


def test_a_function_is_called_with_the_arguments_it_takes():
    offered = {"network": 1, "graph": 2}
    assert call(lambda graph: graph, "own:f", **offered) == 2
    assert call(lambda **given: given, "own:f", **offered) == offered
    with pytest.raises(UserError, match=r"own:f cannot be called .*offered network, graph"):
        call(lambda network, graph, images: 0, "own:f", **offered)


def test_the_files_of_own_code_are_found_wherever_parameters_name_it(own):
    values = {"weights": "https://example.org/x.pt", "reward": {"kind": "own_named_things:score"}}
    assert own_files([values, "ppo", 3]) == [own]
    assert own_files({"agent": "no.such:thing"}) == []
    assert all(isinstance(path, Path) for path in own_files("json:loads"))
