"""What is imported is declared, what is declared is pinned and used, and the checks are the same
wherever they run."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnnrl.files import read_yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCE = sorted([*(ROOT / "gnnrl").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
PARTS = {"pydantic_core": "pydantic"}  # a package of its own that its parent brings
CALLED = {"dvc"}  # runs the stages and is imported nowhere
BEHIND_OTHERS = {"onnxscript"}  # PyTorch's exporter imports it


def third_party(path: Path, *, at_start: bool) -> Iterator[str]:
    """Yield the distributions that a file imports, when it is imported itself or anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        for root in {name.split(".")[0] for name in names}:
            if root not in {*sys.stdlib_module_names, "gnnrl", "stages"}:
                yield DISTRIBUTIONS.get(root, PARTS.get(root, root.replace("_", "-")))


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", text) for text in requirements)
    return {match.group().lower() for match in found if match}


DECLARED = names(PROJECT["project"]["dependencies"])
EXTRAS = {name: names(every) for name, every in PROJECT["project"]["optional-dependencies"].items()}
OPTIONAL = EXTRAS["onnx"] | EXTRAS["distributed"] | EXTRAS["ray"] | EXTRAS["detection"]


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_file_imports_is_declared(path):
    assert set(third_party(path, at_start=True)) <= DECLARED, (
        "an extra is imported where it is used"
    )
    assert set(third_party(path, at_start=False)) <= DECLARED | OPTIONAL


def test_what_is_declared_is_used():
    used = {name for path in SOURCE for name in third_party(path, at_start=False)}
    assert DECLARED - used == CALLED
    assert OPTIONAL - used <= BEHIND_OTHERS


def test_what_is_declared_is_pinned():
    pinned = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    wanted = DECLARED | OPTIONAL | EXTRAS["dev"] - {PROJECT["project"]["name"]}
    assert wanted <= pinned


def test_files_that_are_no_code_are_part_of_the_package():
    package = PROJECT["tool"]["setuptools"]["package-data"]
    declared = {
        file for name, patterns in package.items() for pattern in patterns
        for file in (ROOT / name.replace(".", "/")).glob(pattern)
    }  # fmt: skip
    found = {path for path in (ROOT / "gnnrl").rglob("*") if path.is_file()}
    assert {path for path in found if path.suffix not in (".py", ".pyc")} == declared


def workflow() -> dict[str, Any]:
    return read_yaml(ROOT / ".github" / "workflows" / "check.yaml")


def commands(job: str) -> list[str]:
    steps = workflow()["jobs"][job]["steps"]
    return [line for step in steps for line in step.get("run", "").splitlines()]


def test_the_hosted_workflow_checks_what_is_supported():
    (oldest, after) = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    pythons = workflow()["jobs"]["fast"]["strategy"]["matrix"]["python"]
    assert pythons == [f"3.{minor}" for minor in range(int(oldest), int(after))]


def test_the_hosted_workflow_runs_what_the_own_one_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("ruff check", "ruff format --check", "mypy", "python -m pytest"):
        assert command in commands("fast")
        assert re.search(rf"^{re.escape(command)}( |$)", script, re.MULTILINE), command
    assert "dvc repro --dry --allow-missing" in commands("fast")
    assert any("slow" in line for line in commands("slow"))
    every = workflow()[True]  # YAML 1.1 reads the key `on` so
    assert {"push", "pull_request", "schedule"} <= set(every)


def test_no_address_of_a_package_index_is_written_down():
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / ".ci" / "run"]
    for path in [*files, *(ROOT / ".github").rglob("*.yaml")]:
        assert not re.search(r"index-url|find-links|https?://", path.read_text(encoding="utf-8"))
