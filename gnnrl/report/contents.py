"""What the page about a run says: headline, facts, tables, pictures, next steps."""

from __future__ import annotations

import math

import gnnrl
from gnnrl.graph.budget import share_of
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report import speed
from gnnrl.report.drawing import (
    LayerWidth,
    draw_front,
    draw_search,
    draw_training,
    draw_widths,
)
from gnnrl.report.layers import layer_costs
from gnnrl.report.page import MINUS, Page, Picture, Row, html
from gnnrl.report.run import Run
from gnnrl.tasks.base import spoken


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
    front = run.metrics.get("search", {}).get("front", {})
    rewards = rewards_in_turn(run)
    reached = {
        name: history[f"reward_{run.metric}"].tolist()
        for name, history in run.histories.items()
        if len(history)
    }
    kind = run.search.get("reward", {}).get("kind", "")
    drawn = [
        Picture(
            "channels",
            "Kept channels",
            "Each bar is a layer, in the order of the network; blue is what is kept of it.",
            draw_widths(layer_widths(run.graph, run.plan), dpi),
            on_page=False,
        ),
        Picture(
            "search",
            "The search",
            "Each dot is a plan within the budget, scored on the reward images; higher is better. "
            "The worst tenth may lie below the picture.",
            draw_search(rewards, dpi, kind),
            on_page=bool(rewards),
        ),
        Picture(
            "front",
            "Every budget",
            "The best plan of the one search for each budget, and the controls, before repair: "
            f"{spoken(run.metric)} on the reward images.",
            draw_front(front, dpi, run.metric),
        ),
        Picture(
            "training",
            "Training",
            f"{_said(run)} on the reward images after each epoch, before and after pruning.",
            draw_training(reached, dpi, spoken(run.metric)),
            on_page=bool(reached),
        ),
    ]
    return [picture for picture in drawn if front or picture.name != "front"]


def rewards_in_turn(run: Run) -> list[float]:
    """Return the rewards of the plans that were played for the budget asked for, in turn.

    Rows of a search with students are ordered by reward, and the budget asked for is played first.
    """
    rows = run.evaluations
    if not len(rows):
        return []
    played = rows[rows["episode"] >= 0].sort_values("episode", kind="stable")  # no controls
    if "budget" in played:
        played = played[played["budget"].isin(played["budget"].iloc[:1])]
    return [float(reward) for reward in played.loc[played["status"] == "ok", "reward"]]


def standard_error(accuracy: float, images: int) -> float:
    """Return that of an accuracy on so many images: half of Wilson's interval for z = 1, which is
    above zero for an accuracy of 1, too."""
    spread = accuracy * (1 - accuracy) / images + 1 / (4 * images**2)
    return math.sqrt(spread) / (1 + 1 / images)


def headline(run: Run) -> str:
    """Return the result in one sentence: speed, budget, accuracy."""
    figures, parts = run.figures, []
    if first := speed.budgeted(run):
        gain = first.speedup
        parts.append(
            f"{gain:.2f}x {'faster' if gain >= 1 else 'as fast'} at batch {first.batch} in "
            f"{first.runtime}"
        )
    for resource, asked, reached in budgets(run):
        if reached is not None:
            parts.append(f"{reached:.3f} of the {resource} ({asked:g} asked)")
    if not any(reached is not None for _, _, reached in budgets(run)):
        parts.append(f"{figures['flops_kept']:.3f} of the flops")
    error = ""
    if run.is_accuracy:
        error = f" ± {100 * standard_error(figures['accuracy'], figures['test_images']):.1f}"
    parts.append(
        f"{spoken(run.metric)} {100 * figures[run.metric]:.1f}{error} % against "
        f"{100 * figures[f'dense_{run.metric}']:.1f} %"
    )
    said = ", ".join(parts)
    return said[:1].upper() + said[1:]


def budgets(run: Run) -> list[tuple[str, float, float | None]]:
    """Return each resource, the fraction asked for, and the one reached; None: not known."""
    given = {k: v for k, v in run.search.get("budget", {}).items() if v is not None}
    asked = {name: share_of(run.graph, name, value) for name, value in given.items()}
    found = []
    for resource, fraction in asked.items():
        reached = run.figures.get(f"{resource}_kept")
        if resource == "latency" and (first := speed.budgeted(run)) and first.speedup:
            reached = 1 / first.speedup
        found.append((resource, fraction, reached))
    return found


def comparison(run: Run) -> list[Row]:
    """Return the lines of dense against subnet, measured speed first."""
    figures, images = run.figures, run.figures["test_images"]

    def pair(name: str, scale: float) -> tuple[float, float]:
        return scale * figures[f"dense_{name}"], scale * figures[name]

    errors = None
    if run.is_accuracy:
        dense, subnet = (100 * standard_error(x, images) for x in pair("accuracy", 1))
        errors = dense, subnet
    return [
        *speed.rows(run),
        Row(
            f"{spoken(run.metric)} on test images",
            *pair(run.metric, 100),
            unit=" %",
            digits=2,
            errors=errors,
        ),
        Row("flops of one image", *pair("flops", 1e-6), unit=" M", digits=2),
        Row("parameters", *pair("parameters", 1e-3), unit=" k", digits=1),
        Row("checkpoint", *pair("bytes", 1e-3), unit=" kB", digits=1),
    ]


def facts(run: Run) -> dict[str, str]:
    """Return how the subnet was found, and with what."""
    found = run.metrics.get("search", {})
    asked = [f"{fraction:g} of the {resource}" for resource, fraction, _ in budgets(run)]
    known: dict[str, str | None] = {
        "budget asked": ", ".join(asked),
        "budget reached": ", ".join(f"{x:.3f}" for _, _, x in budgets(run) if x is not None),
        "latency by the table": f"{found['latency_kept']:.3f}" if "latency_kept" in found else None,
        "agent": run.search.get("agent"),
        "seed": str(run.search["seed"]) if "seed" in run.search else None,
        "evaluations": f"{found['evaluations']:.4g}" if "evaluations" in found else None,
        "plans": str(found["plans"]) if "plans" in found else None,
        "gnnrl": gnnrl.__version__,
        "PyTorch": None if run.latency is None else run.latency["torch"],
        "commit": run.commit or None,
    }
    return {name: value for name, value in known.items() if value}


STEPS = (
    ("pretrain", "", "dense network"),
    ("prune", "_before_repair", "subnet after the prune"),
    ("prune", "", "subnet after repair, before training"),
    ("train", "", "subnet after training"),
)


def steps(run: Run) -> list[tuple[str, str]]:
    """Return the metric on the reward images from stage to stage."""
    images = run.metrics.get("pretrain", {}).get("reward_images")
    found = []
    for stage, end, what in STEPS:
        value = run.metrics.get(stage, {}).get(f"reward_{run.metric}{end}")
        if value is not None:
            error = ""
            if images and run.is_accuracy:
                error = f" ± {100 * standard_error(value, images):.2f}"
            found.append((what, f"{100 * value:.2f}{error} %"))
    return found


def controls(run: Run) -> list[tuple[str, str, str, str]]:
    """Return name, metric, reward and the search's gain in reward of every control."""
    found = run.metrics.get("search", {})
    return [
        (
            name,
            f"{100 * control[run.metric]:.2f} %",
            f"{control['reward']:.4f}".replace("-", MINUS),
            f"{found.get(f'gain_over_{name}', math.nan):+.4f}".replace("-", MINUS),
        )
        for name, control in found.get("controls", {}).items()
    ]


def commands(run: Run) -> list[tuple[str, str]]:
    """Return what can be done next, with the exact commands."""
    folder = run.folder / "evaluate"
    smaller = [f"-S search.budget.{name}={0.8 * asked:.2g}" for name, asked, _ in budgets(run)]
    return [
        (
            "Load the subnet in PyTorch, without this library:",
            f"python -c \"import torch; print(torch.export.load('{folder}/subnet.pt2'))\"",
        ),
        (
            "Load it in ONNX Runtime:",
            'python -c "import onnxruntime; '
            f"print(onnxruntime.InferenceSession('{folder}/subnet.onnx').get_inputs()[0])\"",
        ),
        ("Export it again:", "python -m stages.evaluate"),
        ("Try another budget:", " ".join(["dvc exp run", *smaller])),
    ]


def notes(run: Run) -> list[str]:
    """Say what the figures were taken on."""
    error = ", ± one standard error for so many images" if run.is_accuracy else ""
    said = [
        f"{_said(run)} on {run.figures['test_images']} test images that nothing else has "
        f"used{error}. "
        "Flops are multiply-accumulates of convolution and linear layers for one image.",
    ]
    if run.figures["reward_images_from"] == "test":
        said.append(
            "The dense network came trained, so the reward images are taken from the test images; "
            "the test images here are the others."
        )
    whose = run.metrics.get("search", {}).get("plan_of", "search")
    if whose != "search":
        said.append(f"The plan is that of the control {whose}: the search found no better one.")
    said += speed.notes(run)
    return said


def _said(run: Run) -> str:
    """The name of the metric at the start of a sentence."""
    name = spoken(run.metric)
    return name[0].upper() + name[1:]


def render(title: str, run: Run, drawn: list[Picture]) -> str:
    """Return the page as HTML, with all pictures inside."""
    return html(
        Page(
            title,
            headline(run),
            comparison(run),
            notes(run),
            facts(run),
            steps(run),
            controls(run),
            layer_costs(run.graph, run.plan),
            drawn,
            commands(run),
            spoken(run.metric),
        )
    )
