"""What a search leaves behind."""

from __future__ import annotations

from pathlib import Path

from gnnrl.evaluation.student_store import StudentStore, refuse_failure
from gnnrl.files import write_csv, write_json
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.sealed import write_state
from gnnrl.search.journal import EVALUATIONS
from gnnrl.search.loop import SearchResult


def evaluated_before(journal: Path) -> int:
    """Return how many plans a search that was killed had evaluated, by the folder it left."""
    path = journal / EVALUATIONS
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def save(
    folder: Path,
    graph: ComputationalGraph,
    result: SearchResult,
    spent: float,
    store: StudentStore | None = None,
) -> dict[str, float]:
    """Write the plan, every evaluated plan, the agent's history, the agent, and the figures.

    Returns the figures.

    spent: evaluation equivalents before the search.  store: of the best students, if there is one.
    """
    rows = [row for row in result.evaluations if not row["cached"]]
    refuse_failure(rows)
    result.plan.save(folder / "plan.json", graph.digest)
    write_csv(folder / "evaluations.csv", rows if store is None else store.table(rows))
    if store is not None:
        store.publish(folder / "students")
    write_csv(folder / "history.csv", result.history)
    if result.rescored:
        write_csv(folder / "rescored.csv", result.rescored)
    write_state(folder / "agent.pt", result.agent.state_dict())
    figures = summary(graph, result, spent)
    write_json(folder / "metrics.json", {"search": figures})
    return figures


def summary(graph: ComputationalGraph, result: SearchResult, spent: float) -> dict[str, float]:
    """Return the figures of the best plan and what it took to find it."""
    chosen = [row for row in result.evaluations if row["plan"] == result.plan.digest]
    best, dense = max(chosen, key=lambda row: row["reward"]), cost(graph)
    return {
        "reward": result.reward,
        "reward_accuracy": best["accuracy"],
        "flops_kept": best["flops"] / dense.flops,
        "parameters_kept": best["parameters"] / dense.parameters,
        "plans": sum(not row["cached"] for row in result.evaluations),
        "evaluations": spent + sum(row["cost"] for row in (*result.evaluations, *result.rescored)),
    }
