"""The computational graph as a picture: data flow from left to right, a colour for each group."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.graph.operations import operation_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 22
"""Operations side by side before the picture continues in the next row."""

FIXED_COLOUR, EDGE_COLOUR, INK = "#eceff2", "#8a949e", "#1f2933"


def draw(graph: ComputationalGraph, dpi: int = 110) -> bytes:
    """PNG of the graph; the same graph gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown, source = _shown(graph)
    place = _places(shown, source)
    lanes = 1 + max(lane for _, _, lane in place.values())
    columns = min(COLUMNS, 1 + max(column for _, column, _ in place.values()))
    points = {
        name: (column, -(row * (lanes + 0.7) + lane)) for name, (row, column, lane) in place.items()
    }
    lowest = min(y for _, y in points.values())
    size = (0.95 * columns + 0.6, 0.75 * (1.3 - lowest) + 0.3)
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    legend = "One colour: channels that are pruned together. Grey: what is kept whole."
    axes.set_title(legend, fontsize=8, color=INK, loc="left")
    for node in shown:
        for read in source[node.name]:
            _edge(axes, points[read], points[node.name], place[read][0] != place[node.name][0])
    for node in shown:
        _box(axes, points[node.name], node, _colour(graph, node))
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(lowest - 0.5, 0.8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _shown(graph: ComputationalGraph) -> tuple[list[Node], Mapping[str, list[str]]]:
    """Operations that are drawn, and what each of them reads among these.

    Operations that only follow another one are left out where they read one tensor.
    """
    stands_for: dict[str, str] = {}
    shown: list[Node] = []
    source: dict[str, list[str]] = {}
    for node in graph.nodes:
        if not operation_of(node).is_drawn and len(node.inputs) == 1:
            stands_for[node.name] = stands_for[node.inputs[0]]
            continue
        stands_for[node.name] = node.name
        shown.append(node)
        source[node.name] = list(dict.fromkeys(stands_for[i] for i in node.inputs))
    return shown, source


def _places(shown: list[Node], source: Mapping[str, list[str]]) -> dict[str, tuple[int, int, int]]:
    """Row, column and lane: columns by the longest way from the input, lanes where free."""
    depth: dict[str, int] = {}
    taken: dict[int, set[int]] = {}
    place: dict[str, tuple[int, int, int]] = {}
    for node in shown:
        depth[node.name] = 1 + max((depth[read] for read in source[node.name]), default=-1)
        lanes = taken.setdefault(depth[node.name], set())
        wanted = min((place[read][2] for read in source[node.name]), default=0)
        lane = next(k for k in [wanted, *range(len(lanes) + 1)] if k not in lanes)
        lanes.add(lane)
        place[node.name] = (*divmod(depth[node.name], COLUMNS), lane)
    return place


def _edge(axes: Axes, start: tuple[float, float], end: tuple[float, float], wraps: bool) -> None:
    """An arrow; long ones go around, those into the next row are dotted."""
    from matplotlib.patches import FancyArrowPatch

    bend = 0.0 if wraps or end[0] - start[0] <= 1 else -min(0.35, 0.9 / (end[0] - start[0]))
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=7,
            shrinkA=16,
            shrinkB=17,
            linewidth=0.9,
            linestyle=":" if wraps else "-",
            color=EDGE_COLOUR,
            alpha=0.5 if wraps else 0.9,
            zorder=1,
        )
    )


def _box(axes: Axes, point: tuple[float, float], node: Node, colour: object) -> None:
    kernel = node.attributes.get("kernel_size")
    size = f" {'x'.join(map(str, kernel))}" if isinstance(kernel, list) else ""
    axes.text(
        *point,
        f"{node.operation}{size}\n{node.width}",
        ha="center",
        va="center",
        fontsize=6.5,
        color=INK,
        zorder=3,
        bbox={"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": INK, "linewidth": 0.6},
    )


def _colour(graph: ComputationalGraph, node: Node) -> object:
    """Colour of the channel group that most of an operation's channels belong to."""
    from matplotlib import colormaps

    units = node.channels.units if node.channels is not None else np.zeros(0, dtype=np.int64)
    free = units[units >= 0]
    if not len(free):
        return FIXED_COLOUR
    owner = np.repeat(np.arange(len(graph.groups)), [g.size for g in graph.groups])
    group = int(np.bincount(owner[free]).argmax())
    return colormaps["tab20"](0.025 + (group % 20) / 20, alpha=0.55)
