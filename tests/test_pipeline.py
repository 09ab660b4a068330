"""dvc.yaml says what the code does."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from dvc.repo import Repo

from gnnrl.files import read_yaml
from gnnrl.params import STAGE_SECTIONS
from gnnrl.report import summary
from stages.__main__ import STAGES
from tests.report.test_contents import run_of
from tests.test_architecture import in_tables

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
DECLARED: dict[str, Any] = PIPELINE["stages"]


def paths(items: list[Any] | None) -> list[str]:
    """Return the paths of deps or outs, whether they stand alone or with settings."""
    return [next(iter(item)) if isinstance(item, dict) else item for item in items or []]


def outs(name: str) -> list[str]:
    return [*paths(DECLARED[name].get("outs")), *paths(DECLARED[name].get("metrics"))]


def module_files(name: str) -> Iterator[Path]:
    """Yield the file of a module and those of the packages it is in."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        for file in (
            Path(*parts[:length]).with_suffix(".py"),
            Path(*parts[:length], "__init__.py"),
        ):
            if (ROOT / file).exists() and (ROOT / file).read_text(encoding="utf-8").strip():
                yield file


def imports(path: Path, seen: set[Path]) -> set[Path]:
    """Return all files that are reached from `path`: imported, in functions too, named in tables,
    and templates."""
    if path in seen:
        return seen
    seen.add(path)
    modules, templates = named_in(path)
    seen |= templates
    for file in modules:
        imports(file, seen)
    return seen


@cache
def named_in(path: Path) -> tuple[set[Path], set[Path]]:
    """Return the modules that a file imports, and the templates that it names."""
    text, modules = (ROOT / path).read_text(encoding="utf-8"), set[Path]()
    templates = (ROOT / path).parent.glob("*.j2")
    for name in in_tables(ROOT / path):
        modules.update(module_files(name))
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in ("gnnrl", "stages"):
                modules.update(module_files(name))
    return modules, {file.relative_to(ROOT) for file in templates if file.name in text}


def defaults(name: str) -> dict[str, Path]:
    """Return the paths which the options of a stage have by themselves."""
    command = getattr(importlib.import_module(f"stages.{name}"), name)
    values = inspect.signature(command).parameters.values()
    return {p.name: p.default for p in values if isinstance(p.default, Path)}


def test_dvc_knows_the_stages_and_no_others():
    assert tuple(DECLARED) == STAGES == tuple(STAGE_SECTIONS)


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_what_a_stage_imports(name):
    deps = [Path(path) for path in paths(DECLARED[name]["deps"])]
    needed = imports(Path("stages", f"{name}.py"), set()) - {Path("stages/__init__.py")}
    missing = {path for path in needed if not any(path == d or d in path.parents for d in deps)}
    assert not missing, f"add to the deps of {name}: {sorted(map(str, missing))}"


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_nothing_a_stage_does_not_use(name):
    needed = imports(Path("stages", f"{name}.py"), set())
    for dep in paths(DECLARED[name]["deps"]):
        if not dep.startswith(("artifacts/", "inputs/")):
            used = any(Path(dep) == path or Path(dep) in path.parents for path in needed)
            assert used, f"{name} does not import {dep}"


@pytest.mark.parametrize("name", STAGES)
def test_params_are_the_sections_that_the_stage_is_handed(name):
    assert set(DECLARED[name].get("params", [])) == set(STAGE_SECTIONS[name])


def test_every_section_is_tracked_by_a_stage():
    tracked = {section for stage in DECLARED.values() for section in stage.get("params", [])}
    assert tracked == set(read_yaml(ROOT / "params.yaml"))


@pytest.mark.parametrize("name", STAGES)
def test_a_command_is_literal_and_imports_from_the_checkout(name):
    """`python -m` puts the working directory first: a queued experiment runs its own code."""
    assert DECLARED[name]["cmd"] == f"python -m stages.{name}"


@pytest.mark.parametrize("name", STAGES)
def test_nothing_persists_is_frozen_or_always_runs(name):
    assert not set(DECLARED[name]) & {"frozen", "always_changed"}
    for out in DECLARED[name].get("outs", []):
        assert not (isinstance(out, dict) and next(iter(out.values())).get("persist")), out


@pytest.mark.parametrize("name", STAGES)
def test_the_defaults_of_a_stage_are_the_paths_that_dvc_knows(name):
    """What a stage reads without options is a dep or below one, what it writes an out."""
    read = [path for path in paths(DECLARED[name]["deps"]) if path.startswith("artifacts/")]
    for option, default in defaults(name).items():
        if option == "params":
            continue
        path = default.as_posix()
        known = outs(name) if option == "out" else read
        related = [
            k for k in known if k == path or path.startswith(f"{k}/") or k.startswith(f"{path}/")
        ]
        assert related, f"{name} --{option} is {path}, dvc.yaml has {known}"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_what_others_write(name):
    written = [out for other in STAGES if other != name for out in outs(other)]
    for dep in paths(DECLARED[name]["deps"]):
        if dep.startswith("artifacts/"):
            assert any(dep == out or dep.startswith(f"{out}/") for out in written), dep


def test_other_pipelines_leave_nothing_to_check_out():
    """DVC checks out the outs of all pipelines at once; one that was not run would break it."""
    others = {path for path in ROOT.glob("*/**/dvc.yaml") if not (path.parent / ".dvc").exists()}
    for path in others:  # the rest are repositories of their own
        for stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"].values():
            for out in [*stage["outs"], *stage.get("metrics", [])]:
                assert next(iter(out.values())) == {"cache": False}, f"{path}: {out}"
            for dep in paths(stage["deps"]):
                assert (path.parent / stage.get("wdir", ".") / dep).exists(), f"{path}: {dep}"


@pytest.mark.parametrize(
    "folder", ["benchmarks", "examples/federated", "examples/scheduling", "zoo"]
)
def test_other_pipelines_are_repositories_of_their_own(folder):
    """So `dvc status`, `dvc pull` and `dvc metrics show` of the main pipeline leave them alone."""
    other = ROOT / folder
    assert (other / ".dvc" / "config").exists()
    assert (other / ".dvcignore").read_text() == (ROOT / ".dvcignore").read_text()
    stages = Repo(str(other)).index.stages  # each cell of a matrix is one
    made = {Path(out.fs_path) for stage in stages for out in stage.outs}
    assert stages
    for dep in (Path(dep.fs_path) for stage in stages for dep in stage.deps):
        assert dep.exists() or any(dep == out or dep in out.parents for out in made), dep


TIMED = ("artifacts/evaluate/latency.json", "artifacts/report")
"""Outs that differ from run to run, because they hold what was timed."""


def test_what_was_timed_reaches_the_report_and_no_other_stage():
    """Everything else in dvc.lock is the same for the same parameters."""
    assert TIMED[0] in outs("evaluate") and outs("report") == [TIMED[1]]
    for name in STAGES:
        deps = paths(DECLARED[name]["deps"])
        assert name == "report" or not [dep for dep in deps if dep.startswith(TIMED)], name
        assert not [out for out in outs(name) if "latency" in out and out not in TIMED]


def test_all_outs_can_be_pulled():
    """But for the figures of `evaluate`, which Git holds, so that a commit shows them."""
    uncached = {
        next(iter(out))
        for stage in DECLARED.values()
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]
        if isinstance(out, dict) and next(iter(out.values())).get("cache") is False
    }
    assert uncached == {"artifacts/evaluate/metrics.json"}
    assert not (ROOT / ".gitignore").read_text(encoding="utf-8").count("/artifacts/report")


@pytest.mark.parametrize("name", STAGES)
def test_files_of_the_users_own_are_deps_of_the_stages_that_read_them(name):
    inputs = {dep for dep in paths(DECLARED[name]["deps"]) if dep.startswith("inputs/")}
    own = {"pretrain": {"inputs/pretrain"}, "search": {"inputs/search"}}.get(name, set())
    assert inputs == own | ({"inputs/images"} if "data" in STAGE_SECTIONS[name] else set())
    assert all((ROOT / path / ".gitkeep").exists() for path in inputs)


@pytest.mark.parametrize("name", ["search", "agents", "evaluation", "rl", "scheduling"])
def test_a_change_of_the_search_does_not_train_the_dense_network_again(name):
    for stage in ("pretrain", "extract"):
        assert not [d for d in paths(DECLARED[stage]["deps"]) if d.startswith(f"gnnrl/{name}")]


def test_metrics_and_plots_are_files_that_a_stage_writes():
    written = [out for name in STAGES for out in outs(name)]
    plotted = [plot for plot in PIPELINE["plots"] if isinstance(plot, str)]
    for plot in (plot for plot in PIPELINE["plots"] if isinstance(plot, dict)):
        plotted += [path for declared in plot.values() for path in declared["y"]]
    for path in [
        *PIPELINE["metrics"],
        *plotted,
        *(a["path"] for a in PIPELINE["artifacts"].values()),
    ]:
        assert any(path == out or path.startswith(f"{out}/") for out in written), path


def test_plots_ask_for_columns_that_their_tables_have_for_every_task():
    tables = summary.tables(run_of())
    for plot in (plot for plot in PIPELINE["plots"] if isinstance(plot, dict)):
        for settings in plot.values():
            for path, column in settings["y"].items():
                if (table := Path(path)).parent == Path("artifacts/report") and tables[table.stem]:
                    assert {settings["x"], column} <= set(tables[table.stem][0]), path


def test_every_option_of_every_stage_has_help():
    for name in STAGES:
        command = getattr(importlib.import_module(f"stages.{name}"), name)
        for option, hint in get_type_hints(command, include_extras=True).items():
            if option != "return":
                assert hint.__metadata__[0].help, f"{name} --{option}"


def test_every_stage_says_what_it_does():
    assert all(stage["desc"] for stage in DECLARED.values())


def test_paths_are_relative():
    assert "/work" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for name in STAGES:
        assert not any(
            Path(path).is_absolute() for path in [*outs(name), *paths(DECLARED[name]["deps"])]
        )
