"""The code that the pages of `docs/` show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@dataclass(frozen=True)
class Snippet:
    """A block of code of a page: its language, its text, the line it starts in."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that the first line names; None for code that is run as it stands."""
        named = re.match(r"# (\w+/\w+\.py)\n", self.text)
        return named[1] if named else None


def snippets(page: Path, language: str) -> list[Snippet]:
    """Return the blocks of one language, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Snippet(language, b[1], text[: b.start(1)].count("\n") + 1) for b in blocks]


def run(page: Path) -> dict[str, object]:
    """Run the Python of a page from top to bottom, in one namespace; return it."""
    names: dict[str, object] = {"__name__": page.stem}
    for snippet in snippets(page, "python"):
        if snippet.file is None:
            lines = "\n" * snippet.line + snippet.text  # errors name the line of the page
            exec(compile(lines, str(page), "exec"), names)
    return names
