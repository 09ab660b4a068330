"""Files of the user's own that DVC watches, and those that it does not."""

from __future__ import annotations

from types import SimpleNamespace

from gnnrl.params.compatibility import unwatched


def said(stage: str, weights: str | None = None, table: str | None = None) -> list[str]:
    search = SimpleNamespace(agent_from=None, latency_table=table)
    params = SimpleNamespace(pretrain=SimpleNamespace(weights=weights), search=search)
    return list(unwatched(params, stage))


def test_files_outside_the_stages_folder_are_named():
    (line,) = said("pretrain", "weights/my.pth")
    assert line.startswith("'pretrain.weights' is weights/my.pth: DVC notices")
    (line,) = said("search", table="inputs/pretrain/latency.json")
    assert line.endswith("only if it is below inputs/search")


def test_what_is_watched_or_is_no_file_is_not_mentioned():
    assert not said("pretrain", "inputs/pretrain/my.pth")
    assert not said("pretrain", "https://example.com/my.pth") and not said("pretrain", "DEFAULT")
    assert not said("search", "weights/my.pth") and not said("train", "weights/my.pth", "t.json")
