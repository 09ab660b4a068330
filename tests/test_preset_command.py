"""`python -m stages.preset`: overlays over one base become params.yaml, and nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gnnrl.files import read_yaml
from gnnrl.params import check, presets
from stages.preset import app
from tests.stage_runs import EXPERIMENTS

ROOT = EXPERIMENTS.parent
NAMES = presets.names(EXPERIMENTS)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the presets and no Git."""
    shutil.copytree(EXPERIMENTS, tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*words: str) -> tuple[int, str]:
    """Return the exit code and everything that was printed."""
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_an_overlay_of_a_few_lines(name):
    assert 5 <= lines(EXPERIMENTS / f"{name}.yaml") <= 30
    assert presets.title(name, EXPERIMENTS).endswith(".")
    assert check(presets.preset(name, (), EXPERIMENTS))


def test_files_of_settings_are_short():
    assert lines(ROOT / "params.yaml") <= 90
    ours = [EXPERIMENTS / f"{name}.yaml" for name in NAMES if name.startswith("gnnrl-")]
    assert len(ours) == 7 and sum(map(lines, ours)) <= 120


def test_the_default_run_is_the_preset_digits():
    values = presets.preset("digits", (), EXPERIMENTS)
    assert (ROOT / "params.yaml").read_text() == presets.text("digits", values, EXPERIMENTS)


def test_without_a_name_all_presets_are_listed(checkout):
    code, said = called()
    assert code == 0 and [line.split()[0] for line in said.splitlines()] == NAMES


def test_a_preset_is_written_with_what_it_changes(checkout):
    called("digits")
    code, said = called("gnnrl-resnet56-cifar10-70", "--set", "search.seed=1")
    assert code == 0 and "search.budget.flops: 0.5 -> 0.7" in said
    params = check(read_yaml(checkout / "params.yaml"))
    assert (params.network.name, params.search.seed, params.train.seed) == ("resnet56", 1, 2018)


def test_changes_that_are_not_saved_are_overwritten_by_force_only(checkout):
    called("digits", "--set", "search.seed=1")
    before = (checkout / "params.yaml").read_bytes()
    code, said = called("n2n")
    assert code == 1 and "commit or --force" in said
    assert (checkout / "params.yaml").read_bytes() == before
    assert called("n2n", "--force")[0] == 0


def test_with_git_what_is_committed_may_be_overwritten(checkout):
    called("digits", "--set", "search.seed=1")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *words], check=True)
    assert called("n2n")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gnnrl-resnet56-cifar10-71"], "did you mean gnnrl-resnet56-cifar10-70"),
        (["digits", "--set", "search.sead=1"], "did you mean 'search.seed'?"),
        (["digits", "--set", "seed=1"], "--set wants section.key=value"),
        (["broken"], "preset broken: unknown key 'train.recipe.epoch'; did you mean"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_writes_nothing(checkout, words, said):
    (checkout / "experiments" / "broken.yaml").write_text("train: {recipe: {epoch: 1}}")
    code, message = called(*words)
    assert code == 1 and said in message and message.count("\n") == 1
    assert not (checkout / "params.yaml").exists()
