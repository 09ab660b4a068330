"""What the README shows is true: commands, options, files, links, output and numbers."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from benchmarks.published_tables import BLOCK, PAGES, TABLES, rewritten
from gnnrl.files import read_yaml
from gnnrl.params import Params
from stages.__main__ import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
INLINE = [text for text in re.findall(r"`([^`\n]+)`", README) if re.match(r"(dvc|python) ", text)]


def commands() -> Iterator[str]:
    """Yield each command of the code blocks and of the sentences, without variables before it."""
    for block in [*BLOCKS, *INLINE]:
        for line in block.strip().splitlines():
            for command in line.split(" && "):
                yield re.sub(r"^([A-Z_]+=\S+ )+", "", command.strip())


COMMANDS = sorted(set(commands()))


def starting(word: str) -> list[list[str]]:
    return [words for words in map(shlex.split, COMMANDS) if words[0] == word]


def has_key(path: str) -> bool:
    """Whether params.yaml has this key."""
    section = read_yaml(ROOT / "params.yaml")
    for name in path.split("."):
        if not isinstance(section, dict) or name not in section:
            return False
        section = section[name]
    return True


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_first_command_installs_and_the_second_runs():
    first, second = BLOCKS[0].strip(), BLOCKS[1].strip()
    assert first == 'pip install -c constraints.txt -e ".[dev]"'
    assert second == "dvc repro"


def test_continuous_integration_runs_what_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("python -m pytest", "dvc repro", "ruff check", "ruff format --check"):
        assert re.search(rf"^(time )?{re.escape(command)}$", script, re.MULTILINE), command
    assert 'pip install --quiet -c constraints.txt -e ".[dev]"' in script


def test_only_commands_are_used_that_are_checked_here():
    known = {"pip", "dvc", "python"}
    assert {shlex.split(command)[0] for command in COMMANDS} <= known


@pytest.mark.parametrize("words", starting("python"), ids=" ".join)
def test_a_python_command_exists(words):
    assert words[1] == "-m"
    module, arguments = words[2], words[3:]
    if module in ("pytest", "pdoc") or module.startswith("benchmarks."):
        assert importlib.util.find_spec(module) is not None
        return
    package, _, stage = module.partition(".")
    assert package == "stages"
    if not stage:
        assert arguments == ["--help"]
        return
    assert stage in STAGES or (ROOT / "stages" / f"{stage}.py").exists()
    app = importlib.import_module(module).app
    options = {name for p in typer.main.get_command(app).params for name in p.opts} | {"--help"}
    assert {a for a in arguments if a.startswith("--")} <= options
    for setting in (b for a, b in itertools.pairwise(arguments) if a == "--set"):
        assert has_key(setting.partition("=")[0]), setting


@pytest.mark.parametrize("words", starting("dvc"), ids=" ".join)
def test_a_dvc_command_exists(words):
    from dvc.cli.parser import get_main_parser

    get_main_parser().parse_args(words[1:])  # raises for what DVC does not know
    for setting in (b for a, b in itertools.pairwise(words) if a == "-S"):
        assert has_key(setting.partition("=")[0]), setting


@pytest.mark.parametrize("words", starting("pip"), ids=" ".join)
def test_an_installed_extra_exists(words):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = project.partition("[project.optional-dependencies]")[2]
    for extras in re.findall(r"\[(.*?)\]", " ".join(words)):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", known, re.MULTILINE), extra


def test_every_file_and_link_that_is_named_exists():
    names = re.findall(
        r"`((?:stages|experiments|examples|docs|tests|gnnrl|\.ci)/[\w./-]*)`", README
    )
    links = [*re.findall(r"\]\(([^)]+)\)", README), *re.findall(r'src="([^"]+)"', README)]
    names += [link.partition("#")[0] for link in links if "://" not in link]
    assert names
    for name in names:
        assert (ROOT / name).exists(), name
    for page, anchor in (link.split("#") for link in links if "#" in link):
        heads = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}, (
            anchor
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_published_tables_are_those_of_the_measured_rows(page):
    text = page.read_text(encoding="utf-8")
    assert text == rewritten(text), "run python -m benchmarks.published_tables"


def test_each_published_table_stands_on_a_page():
    shown = {name for page in PAGES for _, name, _ in BLOCK.findall(page.read_text("utf-8"))}
    assert shown == set(TABLES)


def test_the_table_of_experiments_shows_what_the_default_run_measured():
    measured = json.loads((ROOT / "artifacts/evaluate/metrics.json").read_text(encoding="utf-8"))
    (line,) = [line for line in README.splitlines() if line.startswith(" main ")]
    assert f" {measured['evaluate']['accuracy']:.4f} " in line
    assert f" {read_yaml(ROOT / 'params.yaml')['search']['budget']['flops']:g} " in line


def test_the_python_of_the_readme_is_that_of_the_introduction_which_is_run():
    (shown,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    run = (ROOT / "docs" / "introduction.md").read_text(encoding="utf-8").splitlines()
    assert shown.strip().splitlines()
    assert [line for line in shown.strip().splitlines() if line not in run] == []


def test_every_stage_is_explained():
    for stage in STAGES:
        assert f"| `{stage}` |" in README


def test_sections_of_the_parameters_are_the_stages_and_what_they_share():
    assert set(Params.model_fields) == {*STAGES, "data", "network", "task"}
