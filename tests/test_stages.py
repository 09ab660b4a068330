"""The commands: one small run from images to report, and what they say when something is wrong."""

from __future__ import annotations

import csv
import errno
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

from gnnrl.checkpoint import Checkpoint
from gnnrl.files import read_yaml
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.params import STAGE_SECTIONS
from gnnrl.pruning.plan import PruningPlan
from stages import _cli
from stages.__main__ import COMMANDS, STAGES
from tests import stage_runs

ROOT = Path(__file__).parents[1]
SMALL = [
    "network.input_shape=[3, 8, 8]",
    "data.reward_images=100",
    "pretrain.recipe.epochs=2",
    "pretrain.snapshots=[1]",
    "search.evaluations=2",
    "search.batch=4",
    "prune.recalibration_images=64",
    "train.recipe.epochs=1",
    "evaluate.latency_rounds=2",
]


def run(stage: str, *arguments: object, params: Path | None = None, small: bool = True) -> None:
    """Run a stage in this process and fail with what it said if it fails."""
    code, said = outcome(stage, *arguments, params=params, small=small)
    assert code == 0, said


def outcome(
    stage: str, *arguments: object, params: Path | None = None, small: bool = True
) -> tuple[int, str]:
    """Run a stage in this process; return its exit code and what it wrote to stderr."""
    settings = SMALL if small else ()
    return stage_runs.outcome(stage, params or ROOT / "params.yaml", settings, *arguments)


def everything(artifacts: Path) -> None:
    """Run all stages one after the other below `artifacts`."""
    graph, plan = artifacts / "extract" / "graph.json", artifacts / "search" / "plan.json"
    dense = artifacts / "pretrain" / "final.safetensors"
    given = {
        "pretrain": [],
        "extract": ["--network", dense],
        "search": ["--pretrain", artifacts / "pretrain", "--graph", graph],
        "prune": ["--pretrain", artifacts / "pretrain", "--graph", graph, "--plan", plan],
        "train": ["--subnet", artifacts / "prune" / "subnet.safetensors", "--teacher", dense],
        "evaluate": ["--dense", dense, "--subnet", artifacts / "train" / "subnet.safetensors"],
        "report": ["--artifacts", artifacts],
    }
    for stage, arguments in given.items():
        run(stage, *arguments, "--out", artifacts / stage)


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep scratch folders out of the checkout, and PyTorch's global settings as they were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNNRL_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        patch.delenv("DVC_STAGE", raising=False)
        patch.delenv("DVC_ROOT", raising=False)
        yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one small run."""
    folder = tmp_path_factory.mktemp("artifacts")
    everything(folder)
    return folder


def figures(artifacts: Path, stage: str) -> dict[str, float]:
    return json.loads((artifacts / stage / "metrics.json").read_text())[stage]


def test_the_plan_keeps_to_the_budget_and_uses_it_up(artifacts):
    graph = ComputationalGraph.load(artifacts / "extract" / "graph.json")
    plan = PruningPlan.load(artifacts / "search" / "plan.json")
    assert 0.47 < cost(graph, plan).flops / cost(graph).flops <= 0.5


def test_costs_are_counted_on_the_cut_network_and_agree_with_the_plan(artifacts):
    graph = ComputationalGraph.load(artifacts / "extract" / "graph.json")
    plan = PruningPlan.load(artifacts / "search" / "plan.json")
    counted = figures(artifacts, "evaluate")
    assert counted["flops"] == cost(graph, plan).flops
    assert counted["parameters"] == cost(graph, plan).parameters
    subnet = Checkpoint.load(artifacts / "train" / "subnet.safetensors").restore()
    assert sum(p.numel() for p in subnet.parameters()) == counted["parameters"]


def test_the_subnet_is_smaller_on_disk(artifacts):
    dense = (artifacts / "pretrain" / "final.safetensors").stat().st_size
    subnet = (artifacts / "train" / "subnet.safetensors").stat().st_size
    counted = figures(artifacts, "evaluate")
    assert subnet < 0.75 * dense
    assert (counted["bytes"], counted["dense_bytes"]) == (subnet, dense)


def test_accuracies_are_fractions_and_what_was_learnt_is_above_chance(artifacts):
    counted = figures(artifacts, "evaluate")
    assert 0.2 < counted["dense_accuracy"] <= 1
    assert counted["test_images"] == 359
    change = counted["accuracy"] - counted["dense_accuracy"]
    assert counted["accuracy_change"] == pytest.approx(change)


def test_pretraining_keeps_the_first_the_last_and_the_weights_asked_for(artifacts):
    epochs = {
        name: Checkpoint.load(artifacts / "pretrain" / f"{name}.safetensors").epoch
        for name in ("initial", "snapshots/1", "final")
    }
    assert epochs == {"initial": 0, "snapshots/1": 1, "final": 2}


def test_every_plan_that_was_scored_has_one_row(artifacts):
    table = list(csv.DictReader((artifacts / "search" / "evaluations.csv").open()))
    rows = [row for row in table if not row["control"]]
    assert len(rows) == len({row["plan"] for row in rows}) == figures(artifacts, "search")["plans"]
    assert figures(artifacts, "search")["reward"] == max(float(row["reward"]) for row in rows)


def test_the_exported_subnet_answers_as_pytorch_does(artifacts):
    from gnnrl.measurement.export import onnx_difference

    subnet = Checkpoint.load(artifacts / "train" / "subnet.safetensors").restore()
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    data = (artifacts / "evaluate" / "subnet.onnx").read_bytes()
    assert onnx_difference(subnet, data, images) < 1e-4
    assert str(ROOT).encode() not in data, "the exporter's notes name paths of this machine"


def test_the_report_needs_nothing_from_elsewhere(artifacts):
    page = (artifacts / "report" / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert page.count("<svg") == 2
    assert all(source.startswith("#") for source in sources)  # parts of the pictures themselves
    assert "latency of 64 images" in page


@pytest.mark.browser
def test_a_browser_shows_all_of_the_report_and_fetches_nothing(artifacts, tmp_path):
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    asked = """<script>onload = () => { document.title = JSON.stringify({
        pictures: [...document.querySelectorAll("svg")].map(
            picture => picture.getBoundingClientRect().width),
        fetched: performance.getEntriesByType("resource").map(entry => entry.name)})}</script>"""
    report = (artifacts / "report" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(report + asked, encoding="utf-8")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()]
    page = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    title = re.findall(r"<title>(.*?)</title>", page)[0]
    said = json.loads(html.unescape(title))
    assert len(said["pictures"]) == 2 and min(said["pictures"]) > 100
    assert not [name for name in said["fetched"] if not name.startswith("data:")]


def test_figures_stand_below_the_name_of_their_stage(artifacts):
    for stage in ("pretrain", "search", "prune", "train", "evaluate"):
        assert list(json.loads((artifacts / stage / "metrics.json").read_text())) == [stage]


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(artifacts, tmp_path):
    everything(tmp_path)
    for path in sorted(artifacts.rglob("*")):
        if path.is_file() and path.name not in ("latency.json", "report.html", "speed.json"):
            again = tmp_path / path.relative_to(artifacts)
            assert again.read_bytes() == path.read_bytes(), path.relative_to(artifacts)


def test_a_subnet_is_pruned_once_more(artifacts, tmp_path):
    subnet = artifacts / "train" / "subnet.safetensors"
    run(
        "pretrain", "--out", tmp_path / "pretrain", "--set", f"pretrain.weights={subnet}",
        "--set", "pretrain.recipe.epochs=0", "--set", "pretrain.snapshots=[]",
    )  # fmt: skip
    again = Checkpoint.load(tmp_path / "pretrain" / "final.safetensors")
    assert len(again.plans) == 1
    run("extract", "--network", tmp_path / "pretrain" / "final.safetensors", "--out", tmp_path)
    graph = ComputationalGraph.load(tmp_path / "graph.json")
    assert cost(graph).flops == figures(artifacts, "evaluate")["flops"]


def search_arguments(artifacts: Path, out: Path) -> list[object]:
    graph = artifacts / "extract" / "graph.json"
    return ["--pretrain", artifacts / "pretrain", "--graph", graph, "--out", out]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.agent=pppo", "got 'pppo'; did you mean ppo?"),
        ("search.space=chanels", "'search.space' must be one of channels, "),
        ("search.importance=l3", "'search.importance' must be one of l1, "),
        ("search.sead=1", "did you mean 'search.seed'"),
        ("search.budget.flops=1e-4", "cannot be met"),
        ("search.weights=7", "'search.weights' is 7, but no snapshot of epoch 7 is kept"),
        ("data.name=digts", "got 'digts'; did you mean digits?"),
        ("data.name=image_folder", "needs a root"),
        ("data.reward_images=100000", "reward_images is 100000"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_earlier_results(artifacts, tmp_path, override, said):
    kept = tmp_path / "search" / "plan.json"
    kept.parent.mkdir()
    kept.write_text("earlier")
    arguments = search_arguments(artifacts, kept.parent)
    code, message = outcome("search", *arguments, "--set", override)
    assert code == 1
    assert said in message
    assert message.count("\n") == 1 and "Traceback" not in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["plan.json"]
    assert kept.read_text() == "earlier"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_writes_all_settings_that_it_ran_with(artifacts, stage):
    written = read_yaml(artifacts / stage / "settings.yaml")
    assert set(written) == set(STAGE_SECTIONS[stage])
    if stage == "search":
        assert written["search"]["evaluations"] == 2
        assert written["search"]["ppo"]["clip_range"] == 0.3


def test_an_unknown_network_is_refused(tmp_path):
    code, said = outcome("pretrain", "--out", tmp_path / "x", "--set", "network.name=resnet21")
    assert code == 1
    assert "there is no network 'resnet21'" in said


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "pretrain"])
def test_a_stage_before_its_turn_says_what_to_run_first(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = outcome(stage, "--out", tmp_path / "out")
    assert code == 1
    assert "first" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("pretrain/final.safetensors", "extract"),
        ("extract/graph.json", "search"),
        ("search/plan.json", "prune"),
        ("prune/subnet.safetensors", "train"),
    ],
)
def test_a_corrupted_artifact_is_one_sentence(artifacts, tmp_path, name, stage):
    broken = tmp_path / Path(name).name
    broken.write_bytes((artifacts / name).read_bytes()[:-40])
    option = {"extract": "--network", "search": "--graph", "prune": "--plan", "train": "--subnet"}
    given = search_arguments(artifacts, tmp_path / "out") if stage in ("search", "prune") else []
    code, said = outcome(stage, *given, option[stage], broken, "--out", tmp_path / "out")
    assert code == 1
    assert broken.name in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("search/evaluations.csv", lambda data: data.replace(b"1", b"2", 1)),
        ("search/evaluations.csv", lambda data: data[: data.rindex(b"\n", 0, -1) + 1]),
        ("train/history.csv", lambda data: b""),
        ("pretrain/history.csv", lambda data: data + data.splitlines()[-1] + b"\n"),
        ("evaluate/metrics.json", lambda data: data.replace(b"1", b"2", 1)),
        ("prune/metrics.json", lambda data: b'{"prune": {}}'),
        ("search/settings.yaml", lambda data: data.replace(b"1", b"2", 1)),
        ("evaluate/latency.json", lambda data: data.replace(b"1", b"2", 1)),
        ("search/digests.json", lambda data: data.replace(b"1", b"2", 1)),
        ("prune/metrics.json", None),
    ],
)
def test_the_report_shows_no_result_that_was_changed(artifacts, tmp_path, name, wrong):
    copy = tmp_path / "copy"
    shutil.copytree(artifacts, copy)
    if wrong is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(wrong((copy / name).read_bytes()))
    code, said = outcome("report", "--artifacts", copy, "--out", tmp_path / "out")
    assert code == 1 and Path(name).name in said and said.count("\n") == 1
    assert f"run `python -m stages.{Path(name).parent}` again" in said


def test_overrides_are_refused_within_dvc(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_STAGE", "extract")
    monkeypatch.setattr(_cli, "end_with_dvc", lambda: None)
    code, said = outcome("extract", "--out", tmp_path / "out")
    assert code == 1
    assert "dvc exp run -S" in said


@pytest.mark.parametrize(("timed", "policy"), [(False, "PASSIVE"), (True, None)])
def test_only_what_measures_speed_has_threads_as_users_have_them(
    timed, policy, monkeypatch, tmp_path
):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is put back
    monkeypatch.delenv("OMP_WAIT_POLICY")
    with _cli.stage("evaluate", ROOT / "params.yaml", None, tmp_path, timed):
        assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_results_take_their_place_only_when_all_is_written(tmp_path):
    out = tmp_path / "out"
    with _cli.results(out) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "a").write_text("1")
    with pytest.raises(RuntimeError), _cli.results(out) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "a").write_text("2")
        raise RuntimeError
    assert (out / "below" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_results_remove_nothing_but_what_the_stage_wrote_itself(tmp_path):
    (tmp_path / "snapshots").mkdir()
    for name in ("theirs", ".gitignore", "snapshots/3.safetensors"):
        (tmp_path / name).write_text("earlier")
    with _cli.results(tmp_path, "snapshots/*.safetensors") as folder:
        (folder / "snapshots").mkdir()
        (folder / "snapshots" / "1.safetensors").write_text("now")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    digests = {"digests.json"}
    assert left == {"theirs", ".gitignore", "snapshots", "snapshots/1.safetensors"} | digests


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    out = tmp_path / "out"
    (out / ".new").mkdir(parents=True)
    (out / ".new" / "half").write_text("1")
    with _cli.results(out) as folder:
        (folder / "whole").write_text("2")
    assert {path.name for path in out.iterdir()} == {"whole", "digests.json"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RecursionError("maximum"), "nested too deeply"),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left"), "the disk is full"),
        (RuntimeError("a\nb"), "RuntimeError: a b"),
        (EOFError(), "EOFError"),
        (IndexError("19"), "IndexError: 19"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_exception_is_one_sentence(error, said, tmp_path, capsys):
    with pytest.raises(typer.Exit), _cli.refusals("train"):
        raise error
    printed = capsys.readouterr().err
    assert printed.startswith("train: ") and said in printed and printed.count("\n") == 1


def test_a_defect_is_one_sentence_and_its_traceback_is_shown_when_asked_for(
    tmp_path, monkeypatch, capsys
):
    for asked in ("", "1"):
        monkeypatch.setenv("GNNRL_TRACEBACK", asked)
        with pytest.raises(typer.Exit), _cli.stage("report", ROOT / "params.yaml", None, tmp_path):
            _ = 1 / 0
        said = capsys.readouterr().err
        assert said.splitlines()[-1].startswith("report: ZeroDivisionError: division by zero")
        assert ("Traceback" in said) == bool(asked)


def test_all_commands_are_listed():
    said = subprocess.run(
        [sys.executable, "-m", "stages", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(re.search(rf"^\W*{command}\b", said, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_comes_without_anything_heavy(stage):
    program = (
        f"import sys; from stages.{stage} import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'torch_geometric', 'dvc'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


def test_the_gain_over_the_uniform_plan_stands_in_the_metrics_and_on_the_page(artifacts):
    found = figures(artifacts, "search")
    uniform = found["controls"]["uniform"]
    assert found["precision_bits"] == 32
    assert found["gain_over_uniform"] == pytest.approx(found["reward"] - uniform["reward"])
    table = list(csv.DictReader((artifacts / "search" / "evaluations.csv").open()))
    (row,) = [row for row in table if row["control"] == "uniform"]
    assert float(row["accuracy"]) == uniform["accuracy"] and row["episode"] == "-1"
    assert found["evaluations"] >= found["found_after"] > float(row["cost"])
    assert "What the search gained" in (artifacts / "report" / "report.html").read_text()
