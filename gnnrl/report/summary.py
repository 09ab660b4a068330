"""The figures of a run that are compared with other runs: one line each, and tables for plots."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from gnnrl.graph.removal import absent_layers
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.report.contents import budgets, rewards_in_turn
from gnnrl.report.run import Run
from gnnrl.report.speed import speeds


def summary(run: Run) -> dict[str, float]:
    """Return the headline figures, as far as they are known.

    accuracy, or the task's metric: on the test images.  budget: asked for.  gain: of the reward
    over the best control.  reward: of the plan.
    """
    found = run.metrics.get("search", {})
    gains = [value for name, value in found.items() if name.startswith("gain_over_")]
    known = {
        run.metric: run.figures[run.metric],
        "budget": min((asked for _, asked, _ in budgets(run)), default=None),
        "gain": min(gains, default=None),
        "reward": found.get("reward"),
    }
    return {name: round(float(value), 4) for name, value in known.items() if value is not None}


def speed(run: Run) -> dict[str, float]:
    """Return how many times as fast as the dense network the subnet is, as it was measured first.

    It was timed, and so stands apart from the figures that are always the same.
    """
    found = speeds(run)
    return {"speed": round(found[0].speedup, 2)} if found else {}


def tables(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of DVC's plots by name.

    A column has the same name for every task: the metric is in `value`, its name in `metric`.
    """
    return {
        "networks": networks(run),
        "plans": plans(run),
        "searched": searched(run),
        "widths": widths(run),
        **{f"epochs_{network}": epochs(run, network) for network in run.histories},
    }


def networks(run: Run) -> list[dict[str, Any]]:
    """Return cost and the task's metric of the dense network and the subnet, for a plot."""
    figures, metric = run.figures, run.metric
    return [
        {"network": name, "flops kept": kept, "metric": metric, "value": figures[prefix + metric]}
        for name, prefix, kept in (("dense", "dense_", 1.0), ("subnet", "", figures["flops_kept"]))
    ]


def epochs(run: Run, network: str) -> list[dict[str, Any]]:
    """Return the task's metric on the reward images after each epoch, for a plot.

    network: dense or subnet.
    """
    history = run.histories[network]
    values = history[f"reward_{run.metric}"] if len(history) else ()
    return [
        {"epoch": place, "metric": run.metric, "value": value}
        for place, value in enumerate(values, 1)
    ]


def plans(run: Run) -> list[dict[str, Any]]:
    """Return cost and reward of every evaluated plan and control, for a plot."""
    dense = run.figures["dense_flops"]
    table = run.evaluations
    if not len(table):
        return []
    table = table[table["status"] == "ok"]
    named = table["control"].fillna("") if "control" in table else [""] * len(table)
    return [
        {"plan": name or "searched", "flops kept": flops / dense, "reward": reward}
        for name, flops, reward in zip(named, table["flops"], table["reward"], strict=True)
    ]


def searched(run: Run) -> list[dict[str, Any]]:
    """Return the reward of every plan of the search in turn, and the best so far, for a plot.

    Controls are not among them: they belong to no place in the search.
    """
    rewards = rewards_in_turn(run)
    return [
        {"plan": place, "reward": reward, "best": best}
        for place, (reward, best) in enumerate(
            zip(rewards, accumulate(rewards, max), strict=True), 1
        )
    ]


def widths(run: Run) -> list[dict[str, Any]]:
    """Return the fraction of channels that is kept of every channel group, for a plot."""
    gone = absent_layers(run.graph, run.plan.removed_layers)
    keep = kept_units(run.graph, run.plan.kept, gone)
    return [
        {"group": group.name, "kept": float(keep[group.start : group.start + group.size].mean())}
        for group in run.graph.groups
    ]
