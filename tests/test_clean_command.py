"""What runs leave in the scratch folder, listed and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gnnrl.scratch import claim
from stages import clean


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """A scratch folder with a finished run, a killed one, a calibration and figures."""
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path))
    with claim("search", "done") as folder:
        (folder / "search.pt").write_bytes(b"x" * 2**20)
    with pytest.raises(RuntimeError), claim("search", "killed"):
        raise RuntimeError
    for name in ("calibration/a.pt", "watch/search-ppo-seed0-1a2b3c4d.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    return tmp_path


def said(*words: str) -> dict[str, str]:
    """Run the command; return what became of everything that it names."""
    result = CliRunner().invoke(clean.app, list(words))
    assert result.exit_code == 0, result.stderr
    *lines, last = result.stdout.splitlines()
    assert last.startswith("clean: ") and all(len(line) <= 80 for line in lines)
    return {line.split()[0]: line.split("days")[1].strip() for line in lines} | {"": last}


def there(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    return {name for name in found if not name.endswith(".lock")}


LEFT = {
    "search/killed": "can go on",
    "calibration/a.pt": "kept",
    "watch/search-ppo-seed0-1a2b3c4d.jsonl": "kept",
}


def test_finished_runs_are_removed_and_what_can_go_on_is_kept(scratch):
    found = said()
    assert "clean: 1.0 MB removed" in found.pop("")
    assert found == {"search/done": "removed", **LEFT}
    assert set(LEFT) <= there(scratch) and "search/done" not in there(scratch)


def test_a_list_removes_nothing(scratch):
    before = there(scratch)
    found = said("--list")
    assert "0.0 MB" in found.pop("") and found == {"search/done": "finished", **LEFT}
    assert there(scratch) == before


def test_all_leaves_only_what_a_process_holds(scratch):
    with claim("search", "held"):
        found = said("--all")
        assert found["search/held"] == "running"
    found.pop("")
    assert {name for name, state in found.items() if state == "removed"} >= set(LEFT)
    assert not there(scratch) & set(LEFT)
