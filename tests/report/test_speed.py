"""What the page says about speed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gnnrl.graph.latency import LatencyTable
from gnnrl.report import contents, speed
from gnnrl.report.run import Run
from tests.report.test_contents import run_of


def run_with(reached: float, spread: float = 0.02, **table: Any) -> Run:
    """Return a run with a budget of half the latency, of which this fraction was measured."""
    run = run_of()
    both = {
        "dense": {"milliseconds": 6.0, "spread": spread},
        "subnet": {"milliseconds": 6.0 * reached, "spread": spread},
        "speedup": {"median": 1 / reached, "spread": spread},
    }
    latency = {
        **(run.latency or {}), "device": "cpu here", "noisy_above": 0.1,
        "runtimes": {"torch": {"1": both}},
    }  # fmt: skip
    made = LatencyTable({}, 1, "here", **{"threads": 2, **table})
    asked = {"budget": {"latency": 0.5}}
    return replace(run, latency=latency, search=asked, table=made)


def said(run: Run) -> str:
    return "\n".join(speed.notes(run))


def test_a_budget_that_is_missed_by_more_than_the_spread_is_said():
    assert "0.560 of the dense network's (torch, one image), over the budget" in said(
        run_with(0.56)
    )
    assert "0.400 of the dense network's" in said(run_with(0.4))
    assert "less than was asked for (0.5)" in said(run_with(0.4))
    assert "Budget missed" not in said(run_with(0.505))
    assert "Budget missed" not in said(run_with(0.56, spread=0.2))


def test_a_table_made_on_a_noisy_machine_is_said():
    assert "noisy machine" not in said(run_with(0.5)) + said(run_with(0.5, spread=0.1))
    noisy = replace(run_with(0.5).table, spread=0.31)
    assert "latency table was made of have a spread of 31 %, above 10 %: measure it again" in said(
        replace(run_with(0.5), table=noisy)
    )


def test_a_table_made_elsewhere_is_said():
    assert "latency table" not in said(run_with(0.5))
    elsewhere = replace(run_with(0.5), table=LatencyTable({}, 1, "there", threads=2))
    assert "of a latency table made on cpu there; measured here: cpu here" in said(elsewhere)
    assert "for 4 threads; measured here: 2" in said(run_with(0.5, threads=4))
    assert "of onnxruntime with 1 images, which was not measured here" in said(
        run_with(0.5, runtime="onnxruntime")
    )


def test_speed_comes_first_with_the_spread_of_its_ratio():
    run = run_with(0.5, spread=0.05)
    assert contents.headline(run).startswith("2.00x faster at batch 1 in torch, 0.500 of the lat")
    assert contents.comparison(run)[0].change == "2.00 ± 0.10 × as fast"


def test_warnings_of_noise_and_a_quantised_file_are_shown():
    run = run_with(0.5)
    latency = {**(run.latency or {}), "warnings": ["noisy machine: dense …"]}
    found = {"metric": "accuracy", "accuracy": 0.9, "bytes": 5000}
    found["milliseconds"] = {"1": {"milliseconds": 0.5, "spread": 0.01}}
    shown = said(replace(run, latency=latency, int8={"int8": found}))
    assert "noisy machine: dense …" in shown
    assert "int8: accuracy 90.00 %, 5.0 kB, 0.50 ms at batch 1 in ONNX Runtime" in shown
