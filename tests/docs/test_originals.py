"""The commands that docs/originals.md gives for published rows fit the presets that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnnrl.params.load import check
from gnnrl.params.presets import names, preset

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "originals.md").read_text(encoding="utf-8").partition("## Networks and")[0]
FOLDER = ROOT / "experiments"
OVERRIDES = re.compile(r"`(-S [^`…]+)`")


def rows() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the preset and the overrides of each row; "the same" is the preset of the row above."""
    name, known = "", set(names(FOLDER))
    for line in PAGE.splitlines():
        cell = line.rpartition(" | ")[2]
        named = [word for word in re.findall(r"`([\w-]+)`", cell) if word in known]
        name = named[0] if named else name
        for words in OVERRIDES.findall(cell):
            yield name, tuple(word for word in shlex.split(words) if word != "-S")


@pytest.mark.parametrize(("name", "overrides"), list(rows()))
def test_a_published_row_can_be_stated(name: str, overrides: tuple[str, ...]):
    assert check(preset(name, overrides, FOLDER))


def test_the_page_gives_commands_for_each_system_with_presets():
    systems = {name.partition("-")[0] for name, _ in rows()}
    assert systems == {"gnnrl", "agmc", "early", "n2n"}
