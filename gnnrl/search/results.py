"""What a search leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gnnrl.evaluation.rewards import PRECISIONS
from gnnrl.evaluation.student_store import StudentStore, refuse_failure
from gnnrl.files import write_csv, write_json
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.sealed import write_state
from gnnrl.search.journal import AGENTS, EVALUATIONS
from gnnrl.search.loop import SearchResult


def evaluated_before(journal: Path) -> int:
    """Return how many plans a search that was killed had evaluated, by the folder it left."""
    path = journal / EVALUATIONS
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def keep_agents(journal: Path, folder: Path) -> None:
    """Copy the agents that a search has kept in its journal to its results."""
    if (kept := journal / AGENTS).exists():
        shutil.copytree(kept, folder / AGENTS)


def save(
    folder: Path,
    graph: ComputationalGraph,
    result: SearchResult,
    spent: float,
    store: StudentStore | None = None,
    precision: str = "float32",
) -> dict[str, Any]:
    """Write the plan, every evaluated plan, the agent's history, the agent, and the figures.

    Returns the figures.

    spent: evaluation equivalents before the search.  store: of the best students, if there is one.
    precision: in which plans were scored.
    """
    rows = [row for row in result.evaluations if not row["cached"]]
    refuse_failure(rows)
    result.plan.save(folder / "plan.json", graph.digest)
    parts = [rows, result.controls]
    tables = parts if store is None else [store.table(part) for part in parts]
    write_csv(folder / "evaluations.csv", [row for table in tables for row in table])
    if store is not None:
        store.publish(folder / "students")
    write_csv(folder / "history.csv", result.history)
    if result.rescored:
        write_csv(folder / "rescored.csv", result.rescored)
    write_state(folder / "agent.pt", result.agent.state_dict())
    figures = summary(graph, result, spent) | {"precision_bits": PRECISIONS[precision].itemsize * 8}
    write_json(folder / "metrics.json", {"search": figures})
    return figures


def summary(graph: ComputationalGraph, result: SearchResult, spent: float) -> dict[str, Any]:
    """Return the figures of the best plan, what it took to find it, and what it gained."""
    chosen = [row for row in result.evaluations if row["plan"] == result.plan.digest]
    best, dense = max(chosen, key=lambda row: row["reward"]), cost(graph)
    return {
        "reward": result.reward,
        "reward_accuracy": best["accuracy"],
        "flops_kept": best["flops"] / dense.flops,
        "parameters_kept": best["parameters"] / dense.parameters,
        "plans": sum(not row["cached"] for row in result.evaluations),
        "evaluations": spent
        + sum(row["cost"] for row in (*result.controls, *result.evaluations, *result.rescored)),
        **compared(graph, result, spent, best["reward"]),
    }


def compared(
    graph: ComputationalGraph, result: SearchResult, spent: float, reward: float
) -> dict[str, Any]:
    """Return the controls, and the gain of a plan with this reward over each of them.

    reward: on the images on which the controls were scored.  beaten_after: evaluation equivalents
    spent when a plan was first better than the control; absent where none was.
    """
    if not result.controls:
        return {}
    dense, controls, gains = cost(graph), {}, {}
    start = spent + sum(row["cost"] for row in result.controls)
    after = start + np.cumsum([row["cost"] for row in result.evaluations])
    for row in result.controls:
        better = [r["reward"] > row["reward"] for r in result.evaluations]
        controls[row["control"]] = {
            "reward": row["reward"],
            "accuracy": row["accuracy"],
            "flops_kept": row["flops"] / dense.flops,
            **({"beaten_after": float(after[better.index(True)])} if any(better) else {}),
        }
        gains[f"gain_over_{row['control']}"] = reward - row["reward"]
    reached = [r["plan"] for r in result.evaluations].index(result.plan.digest)
    return {**gains, "found_after": float(after[reached]), "controls": controls}
