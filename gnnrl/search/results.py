"""What a search leaves behind."""

from __future__ import annotations

from pathlib import Path

from gnnrl.evaluation.student_store import refuse_failure
from gnnrl.files import write_csv, write_json, write_torch
from gnnrl.graph.cost import cost
from gnnrl.search.env import PruningEnv
from gnnrl.search.journal import EVALUATIONS
from gnnrl.search.loop import SearchResult


def evaluated_before(journal: Path) -> int:
    """Return how many plans a search that was killed had evaluated, by the folder it left."""
    path = journal / EVALUATIONS
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def save(folder: Path, env: PruningEnv, result: SearchResult) -> None:
    """Write the plan, every evaluated plan, the agent's history, the agent, and the figures;
    the best students, where some were trained."""
    rows = [row for row in result.evaluations if not row["cached"]]
    refuse_failure(rows)
    result.plan.save(folder / "plan.json")
    gallery = getattr(env.evaluate, "gallery", None)
    write_csv(folder / "evaluations.csv", rows if gallery is None else gallery.consolidated(rows))
    if gallery is not None:
        gallery.publish(folder / "students")
    write_csv(folder / "history.csv", result.history)
    if result.rescored:
        write_csv(folder / "rescored.csv", result.rescored)
    write_torch(folder / "agent.pt", result.agent.state_dict())
    write_json(folder / "metrics.json", {"search": summary(env, result)})


def summary(env: PruningEnv, result: SearchResult) -> dict[str, float]:
    """Return the figures of the best plan and what it took to find it."""
    chosen = [row for row in result.evaluations if row["plan"] == result.plan.digest]
    best, dense = max(chosen, key=lambda row: row["reward"]), cost(env.evaluate.graph)
    return {
        "reward": result.reward,
        "reward_accuracy": best["accuracy"],
        "flops_kept": best["flops"] / dense.flops,
        "parameters_kept": best["parameters"] / dense.parameters,
        "plans": sum(not row["cached"] for row in result.evaluations),
        "evaluations": env.spent
        + sum(row["cost"] for row in (*result.evaluations, *result.rescored)),
    }
