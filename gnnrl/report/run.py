"""What the stages left of a run: read and checked."""

from __future__ import annotations

import io
import math
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from gnnrl.errors import UserError
from gnnrl.files import read_json, read_yaml, user_path
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable
from gnnrl.outputs import refuse_changed
from gnnrl.pruning.plan import PruningPlan
from gnnrl.sealed import opened

COMPARED = ("flops", "parameters", "bytes")  # and the metric
NETWORKS = ("dense", "subnet")
OTHERS = ("pretrain", "search", "prune", "train")


@dataclass(frozen=True)
class Run:
    """What the stages left.

    figures: of `evaluate`.  latency: as `evaluate` measured it; None where it was not measured on
    this machine.  evaluations: of the search.  histories: of training, "dense" and "subnet".
    metrics: of the other stages, as far as they are there.  search: its resolved settings.
    commit: of the checkout; empty where there is none.  table: of a search within a budget of
    latency.  int8: accuracy, bytes and latency of the exported files, where one was quantised.
    """

    figures: Mapping[str, Any]
    latency: Mapping[str, Any] | None
    graph: ComputationalGraph
    plan: PruningPlan
    evaluations: pd.DataFrame
    histories: Mapping[str, pd.DataFrame]
    folder: Path = Path("artifacts")
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    table: LatencyTable | None = None
    int8: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The name of the task's metric."""
        return str(self.figures.get("metric", "accuracy"))

    @property
    def is_accuracy(self) -> bool:
        """Whether it is a fraction of images, of which a standard error is known."""
        return self.metric == "accuracy"


def read_run(artifacts: Path) -> Run:
    """Read the results of all stages below `artifacts`."""
    graph = ComputationalGraph.load(artifacts / "extract" / "graph.json")
    search, quantised = _search(artifacts / "search" / "settings.yaml"), artifacts / "evaluate"
    quantised /= "int8.json"
    figures = _figures(artifacts / "evaluate" / "metrics.json")
    followed = f"reward_{figures.get('metric', 'accuracy')}"
    return Run(
        figures=figures,
        latency=_latency(artifacts / "evaluate" / "latency.json"),
        graph=graph,
        plan=PruningPlan.load(artifacts / "search" / "plan.json", graph.digest),
        evaluations=_csv(artifacts / "search" / "evaluations.csv", "episode", "reward", "status"),
        histories={
            "dense": _csv(artifacts / "pretrain" / "history.csv", followed),
            "subnet": _csv(artifacts / "train" / "history.csv", followed),
        },
        folder=artifacts,
        metrics={stage: _metrics(artifacts / stage, stage) for stage in OTHERS},
        search=search,
        commit=_commit(),
        table=_table(search),
        int8=_read(quantised, lambda path: opened(read_json(path)), {}),
    )


def _metrics(folder: Path, stage: str) -> Mapping[str, Any]:
    """Return the figures of a stage; none where it left none."""
    path = folder / "metrics.json"
    content = _read(path, read_json, {})
    figures = content.get(stage, {}) if isinstance(content, dict) else {}
    return figures if isinstance(figures, dict) else {}


def _search(path: Path) -> Mapping[str, Any]:
    found = _read(path, read_yaml, {}).get("search")
    return found if isinstance(found, dict) else {}


def _commit() -> str:
    """Return the commit of the folder that this runs in; empty where Git knows none."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip().replace("-dirty", ", with changes")


def _figures(path: Path) -> Mapping[str, Any]:
    content = _read(path, read_json)
    figures = content.get("evaluate") if isinstance(content, dict) else None
    if not isinstance(figures, dict):
        raise _unusable(path, "it has no figures under 'evaluate'")
    compared = (str(figures.get("metric", "accuracy")), *COMPARED)
    names = [f"{of}{name}" for name in compared for of in ("dense_", "")]
    for name in (*names, "test_images"):
        if type(figures.get(name)) not in (int, float) or not math.isfinite(figures[name]):
            raise _unusable(path, f"evaluate.{name} is {figures.get(name)!r}, expected a number")
    return {"reward_images_from": "train", **figures}


def _latency(path: Path) -> Mapping[str, Any] | None:
    content = _read(path, lambda path: opened(read_json(path)), None)
    if content is None:
        return None
    content = _with_runtimes(content)
    try:
        sizes = [both for sizes in content["runtimes"].values() for both in sizes.values()]
        times = [both[name]["milliseconds"] for both in sizes for name in NETWORKS]
        times += [spread for both in sizes for spread in _spreads(both)]
        noted = [content[name] for name in ("rounds", "device", "threads", "torch")]
    except (LookupError, TypeError, AttributeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from None
    if any(type(time) not in (int, float) or not time >= 0 for time in times) or None in noted:
        raise _unusable(path, f"a time is no number: {times}")
    return content


def _spreads(both: Mapping[str, Any]) -> list[float]:
    return [*(both[name]["spread"] for name in NETWORKS), *both["speedup"].values()]


def _with_runtimes(content: Any) -> Any:
    """Return latency as it is written now; earlier versions measured PyTorch, without spreads."""
    if not isinstance(content, dict) or "milliseconds" not in content:
        return content
    try:
        sizes = {
            size: {
                **{name: {"milliseconds": both[name], "spread": 0.0} for name in NETWORKS},
                "speedup": {"median": both["dense"] / both["subnet"], "spread": 0.0},
            }
            for size, both in content["milliseconds"].items()
        }
    except (LookupError, TypeError, AttributeError, ZeroDivisionError):
        return content
    return {**content, "runtimes": {"torch": sizes}}


def _table(search: Mapping[str, Any]) -> LatencyTable | None:
    """Return the latency table of the search; None where there is none any more."""
    name = search.get("latency_table")
    if not isinstance(name, str) or search.get("budget", {}).get("latency") is None:
        return None
    path = user_path(name)
    return LatencyTable.load(path) if path.exists() else None


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


def _read(path: Path, read: Callable[[Path], Any], *absent: Any) -> Any:
    """Return what a file holds, `absent` where its stage wrote none."""
    try:
        refuse_changed(path)
        return absent[0] if absent and not path.exists() else read(path)
    except FileNotFoundError as error:
        stage = path.parent.name
        raise UserError(f"there is no {path}: run `python -m stages.{stage}` first") from error
    except ValueError as error:
        raise _unusable(path, str(error)) from None


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: {reason}; run `python -m stages.{path.parent.name}` again")
