"""The pictures of the report, as figures; the same values give the same PNG and SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnrl.tasks.base import spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2933", "#66727f", "#e4e7eb", "#ffffff"
DENSE, SUBNET, FAINT = "#d98a2b", "#2166ac", "#d5dbe1"
MOST_LABELS = 60  # layers named one by one below the picture


@dataclass(frozen=True)
class LayerWidth:
    """How many channels a layer has and how many of them are kept."""

    layer: str
    dense: int
    kept: int


def draw_widths(widths: Sequence[LayerWidth], dpi: int) -> Figure:
    """Draw the kept channels in front of all channels, layer after layer."""
    figure, axes = _figure(min(22.0, max(9.0, 0.24 * len(widths))), 4.2, dpi)
    places = range(len(widths))
    axes.bar(places, [w.dense for w in widths], width=0.8, color=FAINT, label="dense")
    axes.bar(places, [w.kept for w in widths], width=0.8, color=SUBNET, label="kept")
    if len(widths) <= 32:
        for place, width in zip(places, widths, strict=True):
            axes.annotate(
                str(width.kept),
                (place, width.dense),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
            )
    step = -(-len(widths) // MOST_LABELS)
    axes.set_xticks(places[::step], [w.layer for w in widths][::step], rotation=90, fontsize=8)
    axes.set_xlim(-0.7, len(widths) - 0.3)
    axes.set_ylabel("channels")
    axes.grid(visible=False, axis="x")
    _legend(axes)
    return figure


def draw_matrix(values: Any, names: Sequence[str], chance: float, dpi: int = 110) -> Figure:
    """Draw how alike plans are, `[P, P]` in [0, 1]; chance: how alike random ones would be."""
    side = min(14.0, max(4.5, 0.55 * len(names) + 2.0))
    figure, axes = _figure(side, side, dpi)
    axes.imshow(values, cmap="Blues", vmin=0.0, vmax=1.0)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.grid(visible=False)
    if len(names) <= 16:
        for row in places:
            for column in places:
                value = float(values[row][column])
                ink = PAPER if value > 0.6 else INK
                axes.text(
                    column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink
                )
    axes.set_title(f"kept by both over kept by either; by chance {chance:.2f}", fontsize=9)
    return figure


def draw_search(rewards: Sequence[float], dpi: int, kind: str = "") -> Figure:
    """Draw the reward of every evaluated plan and the best one so far; the worst tenth may lie
    below the picture.

    kind: what the reward is, for the axis.
    """
    figure, axes = _figure(5.4, 3.1, dpi)
    counts = range(1, len(rewards) + 1)
    best = [max(rewards[:count]) for count in counts]
    axes.scatter(counts, rewards, s=14, color=MUTED, alpha=0.55, linewidths=0, label="one plan")
    axes.plot(counts, best, color=SUBNET, linewidth=2, drawstyle="steps-post", label="best so far")
    axes.set_xlabel("evaluated plans")
    axes.set_ylabel(f"reward ({kind})" if kind else "reward")
    low = sorted(rewards)[len(rewards) // 10] if rewards else 0.0
    if rewards and max(rewards) > low:  # the worst tenth would squeeze the others
        span = max(rewards) - low
        axes.set_ylim(low - 0.1 * span, max(rewards) + 0.1 * span)
    axes.set_xlim(0.5, max(1, len(rewards)) + 0.5)
    _legend(axes)
    return figure


def draw_front(
    front: Mapping[str, Mapping[str, Mapping[str, float]]], dpi: int, metric: str = "accuracy"
) -> Figure:
    """Draw the metric of the best plan of each budget, and of the controls, against the cost.

    front: by budget, then `search` or the control, as in the metrics of a search.
    """
    figure, axes = _figure(5.4, 3.1, dpi)
    styles = {"search": (SUBNET, "-"), "allocation": (DENSE, "--"), "uniform": (MUTED, ":")}
    for name, (color, line) in styles.items():
        points = [lines[name] for lines in front.values() if name in lines]
        if points:
            costs = [100 * point["flops_kept"] for point in points]
            reached = [100 * point[metric] for point in points]
            axes.plot(costs, reached, line, color=color, linewidth=2, marker=".", label=name)
    axes.set_xlabel("flops kept, %")
    axes.set_ylabel(f"{spoken(metric)}, %")
    if front:
        _legend(axes)
    return figure


def draw_training(
    reached: Mapping[str, Sequence[float]], dpi: int, metric: str = "accuracy"
) -> Figure:
    """Draw the metric after each epoch, a line for each network."""
    figure, axes = _figure(5.4, 3.1, dpi)
    colors = {"dense": DENSE, "subnet": SUBNET}
    for name, values in reached.items():
        epochs = range(1, len(values) + 1)
        axes.plot(
            epochs,
            [100 * v for v in values],
            color=colors[name],
            linewidth=2,
            marker=".",
            label=name,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{metric}, %")
    axes.locator_params(axis="x", integer=True)
    if reached:
        _legend(axes)
    return figure


def draw_points(
    points: Mapping[str, Sequence[tuple[float, float]]], figure_name: str = "accuracy"
) -> Figure:
    """Draw a figure against flops kept, a colour for each setting, a dot for each experiment."""
    figure, axes = _figure(6.4, 4.2, 110)
    for place, (name, pairs) in enumerate(points.items()):
        x, y = zip(*pairs, strict=True)
        axes.scatter(x, y, s=26, color=f"C{place % 10}", alpha=0.8, label=name)
    axes.set_xlabel("flops kept")
    axes.set_ylabel(figure_name)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return figure


def _figure(width: float, height: float, dpi: int) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _legend(axes: Axes) -> None:
    """Put the legend above the picture, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, frameon=False, labelcolor=INK)


def png(figure: Figure) -> bytes:
    """Return a picture for a file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", DENSE: "dense", SUBNET: "subnet"}


def svg(figure: Figure) -> str:
    """Return a picture to stand in a page, in the page's colours (`VARIABLES`) and font."""
    import matplotlib

    data = io.StringIO()
    figure.set_facecolor("none")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gnnrl"}):
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    text = data.getvalue()
    for color, name in VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    return text[text.index("<svg") :]
