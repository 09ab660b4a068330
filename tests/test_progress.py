from __future__ import annotations

import io
import sys

import pytest

from gnnrl import progress as module
from gnnrl.progress import progress


def played(steps: int = 3) -> None:
    with progress("search", total=steps) as bar:
        for step in range(steps):
            bar.advance(best=0.25 * step)


def test_a_log_gets_a_line_at_the_end_and_nothing_where_silence_is_asked_for(capsys, monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    played()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("search: 3/3 ") and "it/s" in line and "best 0.5000" in line
    monkeypatch.setenv("GNNRL_PROGRESS", "0")
    played()
    assert not capsys.readouterr().err


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 1e-9)
    played()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3", "3/3"]


def test_what_need_not_be_seen_is_not_shown(capsys):
    with progress("reading images", total=3, visible=False) as bar:
        bar.advance(2)
        assert bar.done == 2
    assert not capsys.readouterr().err


def test_a_run_that_fails_leaves_the_last_word_to_its_error(capsys, monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    with pytest.raises(ValueError), progress("search", total=3):
        raise ValueError
    assert not capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_rate_and_best(monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    with progress("search", total=4, done=2) as bar:
        bar.advance(best=0.75)
        bar.refresh()
    shown = screen.getvalue()
    assert "3/4" in shown and "best 0.7500" in shown and "it/s" in shown
    assert "\n" not in shown, "the bar disappears and leaves no line behind"


def test_a_resumed_run_reckons_its_rate_without_the_steps_before(monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    with progress("search", total=10**9, done=10**8) as bar:
        bar.advance()
        bar.refresh()
        figures = bar.format_dict
        assert bar.done == 10**8 + 1
        assert (figures["n"] - figures["initial"]) / figures["elapsed"] < 10**8


def test_a_run_that_has_nothing_left_to_do_ends_well(capsys, monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    with progress("training", total=1, done=1):
        pass
    assert "1/1" in capsys.readouterr().err


def test_of_no_steps_nothing_is_said(capsys, monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    with progress("training", total=0):
        pass
    assert not capsys.readouterr().err
