"""What a search leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gnnrl.evaluation.measured import PRECISIONS
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.evaluation.student_store import STUDENTS, StudentStore, refuse_failure
from gnnrl.files import write_csv, write_json
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable, predicted
from gnnrl.pruning.plan import PruningPlan
from gnnrl.sealed import write_state
from gnnrl.search.controls import kept_control, of_budget
from gnnrl.search.front import FILE
from gnnrl.search.journal import AGENTS, EVALUATIONS
from gnnrl.search.loop import SearchResult
from gnnrl.training.evaluate import spoken

OWN = (f"{STUDENTS}/*/*.safetensors", f"{AGENTS}/*.pt")
"""Patterns of results that not every search has."""


def evaluated_before(journal: Path) -> int:
    """Return how many plans a search that was killed had evaluated, by the folder it left."""
    path = journal / EVALUATIONS
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def save(
    folder: Path,
    graph: ComputationalGraph,
    result: SearchResult,
    spent: float,
    store: StudentStore | None,
    reward: RewardSettings,
    metric: str = "accuracy",
    journal: Path | None = None,
    table: LatencyTable | None = None,
) -> dict[str, Any]:
    """Write the plan, every evaluated plan, the agent's history, the agent, and the figures.

    Returns the figures.

    spent: evaluation equivalents before the search.  store: of the best students, if there is one.
    reward: how plans were scored.  metric: name of the task's.  journal: of the search,
    with the agents that it has kept.  table: by which a budget of latency was counted.
    """
    if result.front is not None:
        result.front.save(folder / FILE)
    rows = [row for row in result.evaluations if not row["cached"]]
    refuse_failure(rows)
    result.plan.save(folder / "plan.json", graph.digest)
    parts = [rows, result.controls]
    tables = parts if store is None else [store.table(part) for part in parts]
    write_csv(folder / "evaluations.csv", [_named(row, metric) for t in tables for row in t])
    if store is not None:
        store.publish(folder / STUDENTS)
    write_csv(folder / "history.csv", result.history)
    if result.rescored:
        write_csv(folder / "rescored.csv", result.rescored)
    write_state(folder / "agent.pt", result.agent.state_dict())
    if journal is not None and (kept := journal / AGENTS).exists():
        shutil.copytree(kept, folder / AGENTS)
    figures = summary(graph, result, spent, metric)
    if table is not None:
        dense, left = (predicted(graph, table, plan) for plan in (PruningPlan(), result.plan))
        figures |= {"latency_kept": round(left / dense, 6)}
    if (least := reward.at_least) is not None and f"reward_{metric}" in figures:
        figures |= {"at_least": least, "at_least_met": figures[f"reward_{metric}"] >= least}
    figures |= {"precision_bits": PRECISIONS[reward.precision].itemsize * 8}
    write_json(folder / "metrics.json", {"search": figures})
    return figures


def _named(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return a row of an evaluation with the task's metric under its own name."""
    return {metric if key == "accuracy" else key: value for key, value in row.items()}


def summary(
    graph: ComputationalGraph, result: SearchResult, spent: float, metric: str = "accuracy"
) -> dict[str, Any]:
    """Return the figures of the best plan, what it took to find it, and what it gained."""
    dense, kept = cost(graph), cost(graph, result.plan)
    every = (*result.controls, *result.evaluations, *result.rescored)
    figures = {
        "flops_kept": kept.flops / dense.flops,
        "parameters_kept": kept.parameters / dense.parameters,
        "plans": sum(not row["cached"] for row in result.evaluations),
        "evaluations": round(spent + sum(row["cost"] for row in every), 6),
    }
    if not result.evaluations:
        return figures
    control, scored = kept_control(result), (*result.evaluations, *result.controls)
    chosen = [row for row in scored if row["plan"] == result.plan.digest]
    best = max(chosen, key=lambda row: row["reward"])
    found = {"reward": result.reward, f"reward_{metric}": best["accuracy"], **figures}
    found |= {"plan_of": control or "search"} if result.controls else {}
    found |= compared(graph, result, spent, metric)
    return found | ({"front": front_of(graph, result, metric)} if result.front else {})


def told(figures: Mapping[str, Any], metric: str = "accuracy") -> str:
    """Return the figures in words, for the closing line."""
    reached = ""
    if "reward" in figures:
        value = f"{100 * figures[f'reward_{metric}']:.2f} %"
        reached = f"best reward {figures['reward']:.4f}, {spoken(metric)} {value} on the reward "
        reached += "images, "
    if not figures.get("at_least_met", True):
        reached += f"no plan reached the {100 * figures['at_least']:g} % asked for, "
    whose = figures.get("plan_of", "search")
    other = "" if whose == "search" else f", the plan of {whose}: the search found none better"
    return (
        f"{figures['evaluations']:.4g} evaluations, {reached}"
        f"{figures['flops_kept']:.3f} of the flops{other}"
    )


def front_of(graph: ComputationalGraph, result: SearchResult, metric: str) -> dict[str, Any]:
    """Return by budget the figures of the best plan and those of the controls."""
    dense, found = cost(graph), {}
    asked = result.evaluations[0]["budget"]
    for budget in sorted({row["budget"] for row in result.evaluations}):
        rows = [row for row in result.evaluations if row["budget"] == budget]
        lines = {"search": max(rows, key=lambda row: row["reward"])}
        lines |= of_budget(result.controls, "" if budget == asked else f"{budget:g}")
        found[f"{budget:g}"] = {
            name: {"reward": row["reward"], metric: row["accuracy"],
                   "flops_kept": row["flops"] / dense.flops}
            for name, row in lines.items()
        }  # fmt: skip
    return found


def compared(
    graph: ComputationalGraph,
    result: SearchResult,
    spent: float,
    metric: str = "accuracy",
) -> dict[str, Any]:
    """Return the controls, and the gain over each of them of the best plan that the search found.

    That is the plan of the result, unless it is a control's.  Gains are on the images on which the
    controls were scored.  beaten_after: evaluation equivalents spent when a plan was first better
    than the control; absent where none was.
    """
    if not result.controls:
        return {}
    dense, controls, gains = cost(graph), {}, {}
    start = spent + sum(row["cost"] for row in result.controls)
    after = start + np.cumsum([row["cost"] for row in result.evaluations])
    asked = result.evaluations[0].get("budget")
    own = [r for r in result.evaluations if r.get("budget") == asked]
    if not kept_control(result):
        own = [r for r in own if r["plan"] == result.plan.digest]
    ours = max(own, key=lambda row: row["reward"])
    for name, row in of_budget(result.controls).items():
        better = [r.get("budget") == asked and r["reward"] > row["reward"]
                  for r in result.evaluations]  # fmt: skip
        controls[name] = {
            "reward": row["reward"],
            metric: row["accuracy"],
            "flops_kept": row["flops"] / dense.flops,
            **({"beaten_after": round(float(after[better.index(True)]), 6)} if any(better) else {}),
        }
        gains[f"gain_over_{name}"] = ours["reward"] - row["reward"]
    reached = [r["plan"] for r in result.evaluations].index(ours["plan"])
    return {**gains, "found_after": round(float(after[reached]), 6), "controls": controls}
