"""Draw the picture of the README from a run of the default pipeline.

    dvc repro search
    python -m benchmarks.readme_picture

Reads `artifacts/extract/graph.json` and `artifacts/search/plan.json`, writes
`docs/pictures/pruning.svg`: the dense network, its graph, and the pruned network.  All widths are
those of the plan.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph, Node
from gnnrl.pruning.plan import PruningPlan

STEP, LEFT, WIDE = 30, 66, 960
SCALE = 1.35
"""Pixels of height for one channel."""
FLOOR = {"dense": 138, "pruned": 358}
LINE = 196
SHARED = ("#1f65ad", "#d97706", "#15803d")
INSIDE, FIXED, INK, FAINT = "#93a4b8", "#d5dae1", "#1f2933", "#5b6875"


def drawn(graph: ComputationalGraph) -> list[Node]:
    """Return the operations that the picture shows, in order."""
    return [node for node in graph.nodes if node.operation in ("conv", "add", "linear")]


def colours(graph: ComputationalGraph) -> dict[str, str]:
    """Return the colour of each channel group; groups of several layers get strong ones."""
    shared = iter(SHARED)
    return {g.name: next(shared) if len(g.layers) > 1 else INSIDE for g in graph.groups}


def parts(graph: ComputationalGraph, node: Node, kept: tuple[int, ...]) -> Counter[str]:
    """Return how many of the kept filters of a layer are in each channel group; "": in none."""
    found: Counter[str] = Counter()
    for index in kept:
        unit = int(node.filters.units[index]) if node.filters else -1
        named = (g.name for g in graph.groups if g.start <= unit < g.start + g.size)
        found[next(named, "")] += 1
    return found


def bars(graph: ComputationalGraph, plan: PruningPlan, row: str) -> list[str]:
    """Return a bar for each layer: its height is the number of channels, coloured by group."""
    shades = {**colours(graph), "": FIXED}
    shapes = []
    for i, node in enumerate(drawn(graph)):
        if node.operation == "add":
            continue
        x, y = LEFT + STEP * i - 9, float(FLOOR[row])
        width = graph.parameters[node.parameters[0]].shape[0]
        kept = tuple(range(width)) if row == "dense" else plan.kept.get(node.layer, range(width))
        for group, number in parts(graph, node, tuple(kept)).items():
            y -= SCALE * number
            shapes.append(rectangle(x, y, 18, SCALE * number, f'fill="{shades[group]}"'))
        top = FLOOR[row] - SCALE * width
        if row == "pruned":
            dashes = f'fill="none" stroke="{FAINT}" stroke-width=".7" stroke-dasharray="2 2"'
            shapes.append(rectangle(x, top, 18, SCALE * width, dashes))
        shapes.append(text(x + 9, top - 4, str(len(kept)), "middle", 10))
    return shapes


def edges(graph: ComputationalGraph) -> list[str]:
    """Return the graph: a dot for each layer and addition, a line for each tensor between them."""
    nodes = drawn(graph)
    place = {node.name: i for i, node in enumerate(nodes)}
    by_name = {node.name: node for node in graph.nodes}

    def sources(name: str) -> set[int]:
        """The shown operations that an operation reads, through those not shown."""
        found: set[int] = set()
        for other in by_name[name].inputs:
            found |= {place[other]} if other in place else sources(other)
        return found

    lines, dots = [], []
    shades = colours(graph)
    for i, node in enumerate(nodes):
        x = LEFT + STEP * i
        for j in sources(node.name):
            start = LEFT + STEP * j
            bend = 0 if i - j == 1 else 44
            curve = f"M{start} {LINE} Q{(start + x) / 2} {LINE + bend} {x} {LINE}"
            lines.append(f'<path d="{curve}" fill="none" stroke="{FAINT}" stroke-width="1.2"/>')
        if node.operation == "add":
            dots.append(f'<circle cx="{x}" cy="{LINE}" r="6.5" fill="#fff" stroke="{INK}"/>')
            dots.append(text(x, LINE + 4, "+", "middle", 13))
        else:
            width = graph.parameters[node.parameters[0]].shape[0]
            among = parts(graph, node, tuple(range(width)))
            shade = [shades[name] for name in shades if name in among][-1:] or [FIXED]
            dots.append(f'<circle cx="{x}" cy="{LINE}" r="7.5" fill="{shade[0]}"/>')
    return lines + dots


def rectangle(x: float, y: float, width: float, height: float, style: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{x:g}" y="{y:.1f}" width="{width:g}" height="{height:.1f}" {style}/>'


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    """Return words; anchor: which point of them is at x."""
    place = f'x="{x:g}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}"'
    return f"<text {place}>{words}</text>"


def picture(graph: ComputationalGraph, plan: PruningPlan) -> str:
    """Return the whole picture as SVG, on a background of its own."""
    dense, left = cost(graph), cost(graph, plan)
    high = FLOOR["pruned"] + 52
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" width="{WIDE}"'
    rows = {
        26: f"dense network: {dense.flops / 1e6:.1f} M flops, {dense.parameters:,} parameters",
        172: "its graph: layers and additions",
        256: f"pruned network: {left.flops / 1e6:.1f} M flops, {left.parameters:,} parameters",
    }
    legend = "Height: channels of a layer. Blue, orange, green: groups that several layers share"
    legend += " and that are pruned together. Grey: channels inside one residual block."
    shapes = [
        f'<svg {head} font-family="Helvetica, Arial, sans-serif">',
        rectangle(0, 0, WIDE, high, 'rx="10" fill="#ffffff"'),
        *(text(LEFT - 9, y, words, size=14) for y, words in rows.items()),
        *bars(graph, plan, "dense"),
        *edges(graph),
        *bars(graph, plan, "pruned"),
        text(LEFT - 9, high - 20, legend, size=12),
        "</svg>",
    ]
    return "\n".join(shapes) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/pruning.svg"))
    given = parser.parse_args()
    graph = ComputationalGraph.load(given.artifacts / "extract" / "graph.json")
    plan = PruningPlan.load(given.artifacts / "search" / "plan.json")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(picture(graph, plan), encoding="utf-8")


if __name__ == "__main__":
    main()
