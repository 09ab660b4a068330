from __future__ import annotations

import io
import sys

from gnnrl.progress import progress


def test_progress_speaks_only_when_asked(capsys, monkeypatch):
    for wish, spoken in (("0", False), ("", False), ("1", True)):
        monkeypatch.setenv("GNNRL_PROGRESS", wish)
        with progress("search", total=2) as report:
            report.advance(best=0.5)
            report.advance()
        assert ("search: 2/2" in capsys.readouterr().err) is spoken


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_rate_and_best(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("search", total=4, done=2) as report:
        report.advance(2, best=0.75)
    shown = screen.getvalue()
    assert "4/4" in shown and "best 0.7500" in shown and "/s" in shown


def test_a_resumed_run_reckons_its_rate_without_the_steps_before():
    with progress("search", total=10**9, done=10**8, visible=False) as report:
        report.advance()
        assert report.done == 10**8 + 1 and report.rate < 10**8
