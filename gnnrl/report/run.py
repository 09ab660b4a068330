"""One page about a run: dense against subnet, what was kept, how search and training went."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gnnrl.errors import UserError
from gnnrl.files import read_json
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report.drawing import LayerWidth, draw_search, draw_training, draw_widths
from gnnrl.report.page import Picture, Row, page

COMPARED = ("accuracy", "flops", "parameters", "bytes")
NETWORKS = ("dense", "subnet")


@dataclass(frozen=True)
class Run:
    """What the stages left.

    figures: of `evaluate`.  latency: as `evaluate` measured it; None where it was not measured on
    this machine.  evaluations: of the search.  histories: of training, "dense" and "subnet".
    """

    figures: Mapping[str, Any]
    latency: Mapping[str, Any] | None
    graph: ComputationalGraph
    plan: PruningPlan
    evaluations: pd.DataFrame
    histories: Mapping[str, pd.DataFrame]


def read_run(artifacts: Path) -> Run:
    """Read the results of all stages below `artifacts`."""
    graph = ComputationalGraph.load(artifacts / "extract" / "graph.json")
    return Run(
        figures=_figures(artifacts / "evaluate" / "metrics.json"),
        latency=_latency(artifacts / "evaluate" / "latency.json"),
        graph=graph,
        plan=PruningPlan.load(artifacts / "search" / "plan.json", graph.digest),
        evaluations=_csv(artifacts / "search" / "evaluations.csv", "episode", "reward", "status"),
        histories={
            "dense": _csv(artifacts / "pretrain" / "history.csv", "reward_accuracy"),
            "subnet": _csv(artifacts / "train" / "history.csv", "reward_accuracy"),
        },
    )


def _figures(path: Path) -> Mapping[str, Any]:
    content = _read(path, read_json)
    figures = content.get("evaluate") if isinstance(content, dict) else None
    if not isinstance(figures, dict):
        raise _unusable(path, "it has no figures under 'evaluate'")
    names = [f"{of}{name}" for name in COMPARED for of in ("dense_", "")]
    for name in (*names, "test_images"):
        if type(figures.get(name)) not in (int, float) or not math.isfinite(figures[name]):
            raise _unusable(path, f"evaluate.{name} is {figures.get(name)!r}, expected a number")
    return {"reward_images_from": "train", **figures}


def _latency(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    content = _read(path, read_json)
    try:
        times = [both[name] for both in content["milliseconds"].values() for name in NETWORKS]
        noted = [content[name] for name in ("rounds", "device", "threads", "torch")]
    except (LookupError, TypeError, AttributeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from None
    if any(type(time) not in (int, float) or not time >= 0 for time in times) or None in noted:
        raise _unusable(path, f"a time is no number: {times}")
    return content


def _csv(path: Path, *columns: str) -> pd.DataFrame:
    text = _read(path, lambda path: path.read_text(encoding="utf-8"))
    if not text.strip():  # of a run without epochs
        return pd.DataFrame()
    try:
        table = pd.read_csv(io.StringIO(text))
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    for name in columns:
        if name not in table:
            raise _unusable(path, f"it has no column {name!r}")
        numbers = pd.to_numeric(table[name], errors="coerce") if name != "status" else table[name]
        if numbers.isna().any() or numbers.isin([math.inf, -math.inf]).any():
            raise _unusable(path, f"column {name!r} has entries that are no finite numbers")
    return table


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except FileNotFoundError as error:
        stage = path.parent.name
        raise UserError(f"there is no {path}: run `python -m stages.{stage}` first") from error
    except ValueError as error:
        raise _unusable(path, str(error)) from None


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: {reason}; run `python -m stages.{path.parent.name}` again")


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
    played = run.evaluations.sort_values("episode", kind="stable")
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


def render(title: str, run: Run, drawn: list[Picture]) -> str:
    """Return the page as HTML, with all pictures inside."""
    return page(title, notes(run), comparison(run), drawn)
