"""One page about a run: dense against subnet, what was kept, how search and training went."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report.drawing import LayerWidth, draw_search, draw_training, draw_widths
from gnnrl.report.page import Gain, Picture, Row, page


@dataclass(frozen=True)
class Run:
    """What the stages left.

    figures: of `evaluate`.  latency: as `evaluate` measured it; None where it was not measured on
    this machine.  evaluations: of the search.  histories: of training, "dense" and "subnet".
    search: figures of `search`.
    """

    figures: Mapping[str, Any]
    latency: Mapping[str, Any] | None
    graph: ComputationalGraph
    plan: PruningPlan
    evaluations: pd.DataFrame
    histories: Mapping[str, pd.DataFrame]
    search: Mapping[str, Any] = field(default_factory=dict)


def read_run(artifacts: Path) -> Run:
    """Read the results of all stages below `artifacts`."""
    latency = artifacts / "evaluate" / "latency.json"
    return Run(
        figures=_json(artifacts / "evaluate" / "metrics.json")["evaluate"],
        latency=_json(latency) if latency.exists() else None,
        graph=ComputationalGraph.load(artifacts / "extract" / "graph.json"),
        plan=PruningPlan.load(artifacts / "search" / "plan.json"),
        evaluations=_csv(artifacts / "search" / "evaluations.csv"),
        histories={
            "dense": _csv(artifacts / "pretrain" / "history.csv"),
            "subnet": _csv(artifacts / "train" / "history.csv"),
        },
        search=_json(artifacts / "search" / "metrics.json")["search"],
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): run its stage again") from error


def _csv(path: Path) -> pd.DataFrame:
    text = _text(path)
    if not text.strip():  # of a run without epochs
        return pd.DataFrame()
    return pd.read_csv(io.StringIO(text), float_precision="round_trip")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        stage = path.parent.name
        raise UserError(f"there is no {path}: run `python -m stages.{stage}` first") from error


def layer_widths(graph: ComputationalGraph, plan: PruningPlan) -> list[LayerWidth]:
    """Return the widths of every layer with channels that can be pruned, in the network's order."""
    widths = []
    for layer, node in graph.layers.items():
        units = () if node.filters is None else node.filters.units
        if any(unit >= 0 for unit in units):
            kept = 0 if _removed(layer, plan) else len(plan.kept.get(layer, units))
            widths.append(LayerWidth(layer, len(units), kept))
    return widths


def _removed(layer: str, plan: PruningPlan) -> bool:
    """Whether a layer, or a block that it is in, was taken out."""
    names = layer.split(".")
    return any(".".join(names[:depth]) in plan.removed_layers for depth in range(1, len(names) + 1))


def pictures(run: Run, dpi: int) -> list[Picture]:
    """Draw the widths, the search and the training."""
    searched = run.evaluations
    if "control" in searched:
        searched = searched[searched["control"].isna()]
    played = searched.sort_values("episode", kind="stable")
    rewards = played.loc[played["status"] == "ok", "reward"].tolist()
    accuracies = {
        name: history["reward_accuracy"].tolist()
        for name, history in run.histories.items()
        if len(history)
    }
    return [
        Picture(
            "channels",
            "Kept channels",
            "Each bar is a layer, in the order of the network; blue is what is kept of it.",
            draw_widths(layer_widths(run.graph, run.plan), dpi),
        ),
        Picture(
            "search",
            "The search",
            "Each dot is a plan within the budget, scored on the reward images; higher is better.",
            draw_search(rewards, dpi),
        ),
        Picture(
            "training",
            "Training",
            "Accuracy on the reward images after each epoch, before and after the cut."
            if accuracies
            else "Nothing was trained in this run.",
            draw_training(accuracies, dpi),
        ),
    ]


def comparison(run: Run) -> list[Row]:
    """Return the lines of dense against subnet."""
    figures = run.figures

    def pair(name: str, scale: float) -> tuple[float, float]:
        return scale * figures[f"dense_{name}"], scale * figures[name]

    rows = [
        Row("accuracy on test images", *pair("accuracy", 100), unit=" %", digits=2),
        Row("flops of one image", *pair("flops", 1e-6), unit=" M", digits=2),
        Row("parameters", *pair("parameters", 1e-3), unit=" k", digits=1),
        Row("checkpoint", *pair("bytes", 1e-3), unit=" kB", digits=1),
    ]
    for batch, both in (run.latency or {"milliseconds": {}})["milliseconds"].items():
        what = "latency of one image" if batch == "1" else f"latency of {batch} images"
        rows.append(Row(what, both["dense"], both["subnet"], unit=" ms", digits=2))
    return rows


def notes(run: Run) -> list[str]:
    """Say what the figures were taken on."""
    said = [
        f"Accuracy on {run.figures['test_images']} test images that nothing else has used. "
        "Flops are multiply-accumulates of convolution and linear layers for one image.",
    ]
    if run.figures["reward_images_from"] == "test":
        said.append(
            "The dense network came trained, so the reward images are taken from the test images; "
            "the test images here are the others."
        )
    if run.latency is not None:
        said.append(
            "Latency: median of {rounds} rounds in turn on {device}, threads: {threads}, "
            "PyTorch {torch}.".format_map(run.latency)
        )
    return said


def gains(run: Run) -> list[Gain]:
    """Return the lines of the plan that was found against the plans that need no search."""
    return [
        Gain(
            name,
            control["reward"],
            100 * control["accuracy"],
            run.search[f"gain_over_{name}"],
            control.get("beaten_after"),
        )
        for name, control in run.search.get("controls", {}).items()
    ]


def render(title: str, run: Run, drawn: list[Picture]) -> str:
    """Return the page as HTML, with all pictures inside."""
    return page(title, notes(run), comparison(run), drawn, gains(run))
