"""What the pages of docs/ show: code that runs, parameters that are valid, commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gnnrl.params import check
from stages.__main__ import COMMANDS as STAGE_COMMANDS
from tests.docs import import_graph
from tests.docs.pages import PAGES, ROOT, Snippet, run, snippets
from tests.docs.test_extending import merged

INTRODUCTION = ROOT / "docs" / "introduction.md"
OTHERS = [page for page in PAGES if any(not s.file for s in snippets(page, "python"))]
OTHERS.remove(INTRODUCTION)
SHOWN = [(page, block) for page in PAGES for block in snippets(page, "yaml")]
COMMANDS = [
    (page, line)
    for page in PAGES
    for block in snippets(page, "bash")
    for line in block.text.splitlines()
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What the code of a page leaves, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNNRL_DEVICE", "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return run(request.param)


@pytest.mark.parametrize("names", OTHERS, indirect=True, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(names):
    assert len(names) > 2


@pytest.mark.parametrize("names", [INTRODUCTION], indirect=True)
def test_the_introduction_finds_a_plan_on_budget_and_a_smaller_network(names):
    space, plan = names["space"], names["found"].plan
    assert 0.48 < space.cost(plan).flops / space.dense.flops <= 0.5
    left, dense = names["subnet"].parameters(), names["network"].parameters()
    assert sum(p.numel() for p in left) < 0.75 * sum(p.numel() for p in dense)


def test_the_snippet_that_adds_an_operation_takes_at_most_thirty_lines():
    found = [s for s in snippets(ROOT / "docs" / "extending.md", "python") if not s.file]
    (snippet,) = [s for s in found if "add_rule" in s.text]
    assert len(snippet.text.splitlines()) <= 30


def test_the_five_steps_take_at_most_25_lines():
    (steps, *_) = snippets(INTRODUCTION, "python")
    assert len([line for line in steps.text.splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize(("page", "block"), SHOWN, ids=lambda v: getattr(v, "stem", None))
def test_parameters_that_are_shown_are_valid(page: Path, block: Snippet):
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    check(merged(values, yaml.safe_load(block.text)), f"{page.name}:{block.line}")


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda v: getattr(v, "stem", v))
def test_a_command_that_is_shown_exists(page: Path, line: str):
    words = shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", line), comments=True)
    if words[0] == "cp":
        assert (ROOT / words[1]).is_file()
    elif words[0] == "python":
        assert words[1] == "-m"
        module = ROOT / words[2].replace(".", "/")
        file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        assert words[2] in ("pdoc", "pytest") or file.is_file()
        assert all((ROOT / word).exists() for word in words if word.endswith(".yaml"))
    elif words[0] == "dvc":
        assert words[1] in ("repro", "exp", "queue")
    elif words[0] == "cd":
        assert (ROOT / words[1]).is_dir()
    else:
        assert words[0] == "ray" or words[:2] == ["pip", "install"]


@pytest.mark.ray
@pytest.mark.parametrize("line", [line for _, line in COMMANDS if line.startswith("ray ")])
def test_a_ray_command_exists(line: str):
    from ray.scripts.scripts import cli

    words = shlex.split(line, comments=True)
    options = {name for p in cli.commands[words[1]].params for name in p.opts}
    assert {word.partition("=")[0] for word in words[2:]} <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_and_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in (link for link in LINK.findall(text) if "://" not in link):
        target, _, anchor = link.partition("#")
        other = page if not target else page.parent / target
        assert other.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            plain = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in plain, link
    for name in re.findall(
        r"`((?:gnnrl|stages|tests|examples|experiments|benchmarks)/[\w./-]+)`", text
    ):
        made = name.endswith(".csv") or name == "benchmarks/data/"
        assert made or (ROOT / name).exists(), name
    for name in re.findall(r"`(gnnrl(?:\.\w+)+)[`(]", text):
        assert resolves(name), name
    for name in re.findall(r"`python -m stages\.(\w+)", text):
        assert name in STAGE_COMMANDS, name


def resolves(path: str) -> bool:
    """Whether a dotted name is a module or something in one."""
    import pkgutil

    try:
        pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return False
    return True


def test_the_import_graph_is_that_of_the_code():
    text = import_graph.PAGE.read_text(encoding="utf-8")
    assert text == import_graph.rewritten(text), "run python -m tests.docs.import_graph"


def test_every_page_is_listed():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in index for page in PAGES if page.name != "README.md")
