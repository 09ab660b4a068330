"""Draw which room imports which on docs/architecture.md: python -m tests.docs.import_graph

The drawing is made from the imports of all files.  An arrow is left out if a longer way says the
same; files directly below gnnrl/ that everything may use are left out as well.
"""

from __future__ import annotations

import re

from tests.docs.pages import ROOT
from tests.test_architecture import FILES, HEIGHTS, imported, module_name, ours, room

PAGE = ROOT / "docs" / "architecture.md"
BLOCK = re.compile(r"(<!-- import graph -->\n).*?(<!-- end -->)", re.DOTALL)
EVERYWHERE = {name for name, height in HEIGHTS.items() if height <= 5}


def edges() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        here = room(module_name(path))
        rooms = {room(name) for name in ours(imported(path))} - {here, "gnnrl", *EVERYWHERE}
        found.setdefault(here, set()).update(rooms)
    return {here: rooms for here, rooms in found.items() if here not in {"gnnrl", *EVERYWHERE}}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return the rooms that a room imports, directly or through others."""
    found: set[str] = set()
    for room_ in graph.get(start, set()):
        found |= {room_} | reachable(graph, room_)
    return found


def drawing() -> str:
    """Return the graph as a Mermaid diagram, without arrows that follow from others."""
    graph = edges()
    lines = ["```mermaid", "flowchart TD"]
    for here in sorted(graph, key=lambda name: (-HEIGHTS[name], name)):
        longer = set().union(*(reachable(graph, there) for there in graph[here]))
        lines += [f"    {here} --> {there}" for there in sorted(graph[here] - longer)]
    return "\n".join([*lines, "```"])


def rewritten(text: str) -> str:
    """Return the page with the drawing of today's imports."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{drawing()}\n\n{m[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
