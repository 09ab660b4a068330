"""The reference is made from docstrings: they are all there, and the tool can read them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, snippets

FILES = sorted([*(ROOT / "gnnrl").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])
COMMAND = next(
    block.text.split()
    for block in snippets(ROOT / "docs" / "README.md", "bash")
    if "pdoc" in block.text
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_class_and_function_says_what_it_is(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name != "__init__.py":
        assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name}"


def made(folder: Path, *modules: str) -> list[str]:
    """Run the page's command on these modules; return the pages it made."""
    assert COMMAND == ["python", "-m", "pdoc", "gnnrl", "stages", "-o", "docs/api"]
    words = [sys.executable, "-m", "pdoc", *modules, "-o", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return [str(path.relative_to(folder)) for path in folder.rglob("*.html")]


def test_the_reference_can_be_made(tmp_path):
    assert "gnnrl/pruning/plan.html" in made(tmp_path, "gnnrl.pruning.plan", "gnnrl.errors")
    page = (tmp_path / "gnnrl" / "pruning" / "plan.html").read_text(encoding="utf-8")
    assert "What to keep of a network; frozen" in page


@pytest.mark.slow
def test_the_whole_reference_can_be_made(tmp_path):
    pages = made(tmp_path, "gnnrl", "stages")
    for path in FILES:
        # a package that says what it offers stands on one page
        whole = "__all__" in (path.parent / "__init__.py").read_text(encoding="utf-8")
        if not whole and not path.name.startswith("_"):
            assert str(path.relative_to(ROOT).with_suffix(".html")) in pages
