"""What the page about a run says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report import contents
from gnnrl.report.layers import layer_costs
from gnnrl.report.run import Run


def deep(layers: int) -> nn.Sequential:
    """A network of that many convolutions."""
    parts = [nn.Conv2d(3, 8, 1)] + [nn.Conv2d(8, 8, 1) for _ in range(layers - 1)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def run_of(layers: int = 3) -> Run:
    """Return a run in which the first layer keeps half of its channels."""
    graph = extract(deep(layers), torch.zeros(1, 3, 4, 4))
    names = ("accuracy", "flops", "parameters", "bytes")
    figures = dict(zip(names, (0.99, 50, 60, 70), strict=True))
    figures |= {f"dense_{name}": 100 for name in names} | {"dense_accuracy": 0.995}
    figures |= {"flops_kept": 0.499, "parameters_kept": 0.6, "test_images": 400}
    plan = PruningPlan(kept={"0": (0, 1, 2, 3)})
    evaluations = pd.DataFrame(
        {"episode": [0, 1], "reward": [-1.0, -0.5], "status": "ok", "flops": 50, "best": -1.0}
    )
    return Run(
        {**figures, "reward_images_from": "test"},
        {
            "runtimes": {
                "torch": {
                    "1": {
                        "dense": {"milliseconds": 6.0, "spread": 0.02},
                        "subnet": {"milliseconds": 5.0, "spread": 0.02},
                        "speedup": {"median": 1.2, "spread": 0.05},
                    }
                }
            },
            **{"rounds": 3, "device": "cpu", "threads": 2, "torch": "2"},
        },
        graph,
        plan,
        evaluations,
        {"dense": pd.DataFrame(), "subnet": pd.DataFrame({"reward_accuracy": [0.5, 0.9]})},
        metrics={
            "pretrain": {"reward_accuracy": 1.0, "reward_images": 100},
            "search": {
                **{"evaluations": 95.99999, "plans": 160, "gain_over_uniform": 0.25},
                "controls": {"uniform": {"reward": -0.75, "accuracy": 0.8}},
            },
        },
        search={"budget": {"flops": 0.5, "latency": None}, "agent": "ppo", "seed": 7},
    )


def test_the_headline_says_speed_cost_and_accuracy_with_its_error():
    assert contents.headline(run_of()) == (
        "1.20x faster at batch 1 in torch, 0.499 of the flops (0.5 asked), "
        "accuracy 99.0 ± 0.5 % against 99.5 %"
    )


def test_an_accuracy_of_one_has_an_error_too_and_more_images_a_smaller_one():
    assert contents.standard_error(1.0, 100) == pytest.approx(0.005, rel=0.02)
    assert contents.standard_error(0.5, 400) == pytest.approx(0.025, rel=0.01)


def test_facts_steps_and_controls_are_shown_as_far_as_they_are_known():
    run = run_of()
    facts = contents.facts(run)
    assert facts["agent"] == "ppo" and facts["seed"] == "7" and facts["evaluations"] == "96"
    assert contents.steps(run) == [("dense network", "100.00 ± 0.50 %")]
    minus = "\N{MINUS SIGN}"
    assert contents.controls(run) == [("uniform", "80.00 %", f"{minus}0.7500", "+0.2500")]
    assert contents.comparison(run)[0].what == "latency of one image"


def test_the_cost_of_the_layers_is_that_of_the_network_before_and_after_the_plan():
    run = run_of()
    layers = layer_costs(run.graph, run.plan)
    assert sum(layer.dense for layer in layers) == cost(run.graph).flops
    assert sum(layer.kept for layer in layers) == cost(run.graph, run.plan).flops
    assert layers[0].channels == 8 and layers[0].channels_kept == 4


def test_a_subnet_alone_is_drawn_in_its_own_colour():
    training = contents.pictures(run_of(), 40)[-1]
    assert training.on_page
    assert "var(--subnet)" in training.svg and "var(--dense)" not in training.svg


@pytest.mark.browser
@pytest.mark.parametrize("layers", [3, 100])
def test_the_page_fits_a_phone(layers: int, tmp_path: Path):
    run = run_of(layers)
    page = contents.render("A run", run, contents.pictures(run, 40))
    probe = "<script>e=document.documentElement;document.title=e.scrollWidth+' of '+e.clientWidth"
    probe += "</script></body>"
    (tmp_path / "page.html").write_text(page.replace("</body>", probe))
    frame = "<iframe id=f src=page.html style='width:390px;height:900px'></iframe><script>"
    frame += "onload=()=>{document.title=f.contentDocument.title}</script>"
    (tmp_path / "frame.html").write_text(frame)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = ["chromium", *words, (tmp_path / "frame.html").as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert "<title>375 of 375</title>" in said  # 15 pixels are the scroll bar's
