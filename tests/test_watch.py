"""Figures that are written while a run goes on."""

from __future__ import annotations

import json
import sys

import pytest

from gnnrl import watch as module
from gnnrl.errors import UserError
from gnnrl.watch import Watch, refuse_no_board
from stages import _cli


def lines(watch: Watch) -> list[dict[str, object]]:
    return [json.loads(line) for line in watch.lines.read_text().splitlines()]


def test_a_line_is_there_as_soon_as_its_step_is_done(tmp_path):
    watch = Watch(tmp_path / "watch" / "run.jsonl")
    watch.begin()
    watch.add(1, {"reward": 0.5, "status": "ok", "best": float("-inf")})
    assert lines(watch) == [{"step": 1, "reward": 0.5, "status": "ok", "best": None}]


def test_a_run_that_goes_on_replaces_what_it_does_again(tmp_path):
    first = Watch(tmp_path / "run.jsonl")
    first.begin()
    for step in (1, 2, 3):
        first.add(step, {"loss": float(step)})
    first.lines.write_text(first.lines.read_text() + '{"step": 4, "lo')  # killed while it wrote
    second = Watch(first.lines)
    second.begin(done=2)
    second.add(3, {"loss": 30.0})
    assert [(line["step"], line["loss"]) for line in lines(second)] == [(1, 1.0), (2, 2.0), (3, 30)]


def test_a_run_from_the_start_keeps_nothing_of_an_earlier_one(tmp_path):
    watch = Watch(tmp_path / "run.jsonl")
    watch.begin()
    watch.add(1, {"loss": 1.0})
    watch.begin()
    assert not lines(watch)


def test_tensorboard_reads_the_same_figures(tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "board"))
    watch = Watch.of("train-torchvision/resnet18-seed0", "0123456789")
    watch.begin()
    watch.add(1, {"loss": 0.5, "status": "ok"})
    watch.add(2, {"loss": 0.25})
    watch.close()
    assert watch.lines.name == "train-torchvision-resnet18-seed0-01234567.jsonl"
    read = accumulator.EventAccumulator(str(tmp_path / "board" / watch.lines.stem)).Reload()
    assert read.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def test_event_files_that_cannot_be_written_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    refuse_no_board()  # nobody asks for them
    monkeypatch.setenv(module.VARIABLE, "board")
    with pytest.raises(UserError, match=r"GNNRL_TENSORBOARD is set, but .* '\.\[watch\]'"):
        refuse_no_board()


@pytest.mark.parametrize(
    ("env", "argv", "said"),
    [
        ({}, ["/x/stages/search.py", "--set", "search.seed=1 2"],
         "run `python -m stages.search --set 'search.seed=1 2'` to go on where it was"),
        ({}, ["/x/stages/__main__.py", "train"], "run `python -m stages train` to go on where"),
        ({"DVC_STAGE": "search"}, ["/x/stages/search.py"], "run `dvc repro` again to go on"),
        ({"DVC_STAGE": "search", "DVC_EXP_NAME": "mossy"}, ["/x/stages/search.py"],
         "queue or run the experiment again with the same values to go on"),
        ({}, ["pytest"], "run the same command again to go on where it was"),
    ],
)  # fmt: skip
def test_a_run_that_is_ended_says_which_command_goes_on(env, argv, said, monkeypatch):
    for name in ("DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", argv)
    assert _cli.goes_on().startswith(said)
