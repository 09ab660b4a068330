from __future__ import annotations

from gnnrl.progress import progress


def test_progress_speaks_only_when_asked(capsys, monkeypatch):
    for wish, spoken in (("0", False), ("", False), ("1", True)):
        monkeypatch.setenv("GNNRL_PROGRESS", wish)
        with progress("search", total=2) as report:
            report.advance(best=0.5)
            report.advance()
        assert ("search: 2/2" in capsys.readouterr().err) is spoken
