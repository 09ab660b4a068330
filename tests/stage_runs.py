"""A stage, run in this process as its command runs it."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from typer.testing import CliRunner

from gnnrl.params import presets

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
WRITTEN = tempfile.TemporaryDirectory(prefix="presets-")


@cache
def preset(name: str) -> Path:
    """Return a file of parameters as `python -m stages.preset` writes it."""
    path = Path(WRITTEN.name) / f"{name}.yaml"
    path.write_text(presets.text(name, presets.preset(name, (), EXPERIMENTS), EXPERIMENTS))
    return path


def outcome(stage: str, params: Path, settings: Iterable[str], *words: object) -> tuple[int, str]:
    """Run a stage; return its exit code and what it wrote to stderr. A defect is raised."""
    said = ["--params", str(params)]
    for setting in settings:
        said += ["--set", setting]
    said += [str(word) for word in words]
    result = CliRunner().invoke(importlib.import_module(f"stages.{stage}").app, said)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def run(stage: str, params: Path, settings: Iterable[str], *words: object) -> None:
    """Run a stage and fail with what it said if it fails."""
    code, said = outcome(stage, params, settings, *words)
    assert code == 0, said
