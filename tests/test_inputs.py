"""Files of the user's own that DVC watches, and those that it does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gnnrl.errors import UserError
from gnnrl.params import check, compatibility
from gnnrl.params.compatibility import refuse_missing_files, unwatched
from stages.latency import TABLE


def said(stage: str, weights: str | None = None, table: str | None = None) -> list[str]:
    search = SimpleNamespace(agent_from=None, latency_table=table)
    params = SimpleNamespace(pretrain=SimpleNamespace(weights=weights), search=search)
    return list(unwatched(params, stage))


def test_files_outside_the_stages_folder_are_named():
    (line,) = said("pretrain", "weights/my.pth")
    assert line.startswith("'pretrain.weights' is weights/my.pth: DVC notices")
    (line,) = said("search", table="inputs/pretrain/latency.json")
    assert line.endswith("only if it is below inputs/search")


def test_a_table_that_is_not_there_is_refused_by_the_first_stage_unless_it_is_measured_later():
    search = {"budget": {"flops": None, "latency": 0.5}}
    params = check({"search": {**search, "latency_table": "no/table.json"}})
    with pytest.raises(UserError, match=r"'search.latency_table': there is no file no/table.json"):
        refuse_missing_files(params, "pretrain")
    later = check({"search": {**search, "latency_table": TABLE.as_posix()}})
    refuse_missing_files(later, "pretrain")
    assert TABLE.as_posix() == compatibility.TABLE


def test_what_is_watched_or_is_no_file_is_not_mentioned():
    assert not said("pretrain", "inputs/pretrain/my.pth")
    assert not said("pretrain", "https://example.com/my.pth") and not said("pretrain", "DEFAULT")
    assert not said("search", "weights/my.pth") and not said("train", "weights/my.pth", "t.json")
