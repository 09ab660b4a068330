"""Every part of one's own, as docs/extending.md shows it, through the pipeline; nothing else."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from gnnrl.checkpoint import Checkpoint
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.measurement.comparison import nonzero
from gnnrl.pruning.plan import PruningPlan
from gnnrl.registry import own_files
from tests.docs.pages import ROOT, snippets

PAGE = ROOT / "docs" / "extending.md"
PARTS = [snippet for snippet in snippets(PAGE, "python") if snippet.file]
SMALL = {
    "pretrain": {"snapshots": [], "recipe": {"epochs": 3}},
    "search": {"evaluations": 2, "batch": 4},
    "prune": {"recalibration_images": 64},
    "train": {"recipe": {"epochs": 1}},
}


def merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with those of `changes` in their place, section by section."""
    for key, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        values[key] = merged(values[key], value) if inner else value
    return values


def outcome(stage: str, folder: Path, *arguments: object) -> tuple[int, str]:
    app = importlib.import_module(f"stages.{stage}").app
    words = ["--params", folder / "params.yaml", *arguments]
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def run(stage: str, folder: Path, *arguments: object) -> None:
    code, said = outcome(stage, folder, *arguments)
    assert code == 0, said


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package `mine` and params.yaml as the page has them, pretrained."""
    folder = tmp_path_factory.mktemp("project")
    values = merged(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), SMALL)
    for snippet in snippets(PAGE, "yaml"):
        merged(values, yaml.safe_load(snippet.text))
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    for part in PARTS:
        (folder / part.file).parent.mkdir(exist_ok=True)
        (folder / part.file).write_text(part.text)
    (folder / "mine" / "broken.py").write_text("def nan(measured): return float('nan')\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_STAGE", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        patch.setenv("GNNRL_SCRATCH", str(folder / "scratch"))
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
            patch.delitem(sys.modules, name)
        run("pretrain", folder)
        run("extract", folder)
        yield folder
    torch.use_deterministic_algorithms(False)


def metrics(project: Path, stage: str) -> dict[str, float]:
    path = project / "artifacts" / stage / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))[stage]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_a_part_takes_at_most_thirty_lines(part):
    assert len(part.text.splitlines()) <= 30


def test_the_page_shows_every_part_that_params_can_name(project):
    assert {Path(path).stem for path in own_files(yaml.safe_load(Path("params.yaml").open()))} == {
        "network", "stripes", "reward", "importance", "space", "encoder", "policy", "agent"
    }  # fmt: skip


def test_own_network_and_own_images_are_trained(project):
    assert metrics(project, "pretrain")["reward_accuracy"] > 0.9
    assert metrics(project, "pretrain")["train_images"] == 320 - 64


def test_own_reward_importance_space_and_agent_search_and_the_subnet_is_trained(project):
    for stage in ("search", "prune", "train"):
        run(stage, project)
    graph = ComputationalGraph.load("artifacts/extract/graph.json")
    plan = PruningPlan.load("artifacts/search/plan.json")
    assert 0.4 < cost(graph, plan).flops / cost(graph).flops <= 0.5
    with open("artifacts/search/evaluations.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    left = [float(row["parameters"]) / cost(graph).parameters for row in rows]
    dense = metrics(project, "pretrain")["reward_accuracy"]
    rewards = [
        (1 - kept**2) * float(row["accuracy"]) / dense for row, kept in zip(rows, left, strict=True)
    ]
    assert [float(row["reward"]) for row in rows] == pytest.approx(rewards)
    Checkpoint.load("artifacts/train/subnet.safetensors", trust=True).restore()


@pytest.mark.parametrize("agent", ["ppo", "reinforce"])
def test_own_encoder_carries_the_learning_agents(project, tmp_path, agent):
    run("search", project, "--out", tmp_path, "--set", f"search.agent={agent}")
    state = torch.load(tmp_path / "agent.pt", weights_only=True)
    for part in ("actor", "critic"):  # mine.policy has an encoder for each
        assert any(key == f"{part}.embed.encoder.join.weight" for key in flat(state))


def flat(state: Any) -> Iterator[str]:
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield key
            yield from flat(value)


def test_space_weights_meets_its_budget_and_training_keeps_the_zeros(project, tmp_path):
    budget = "search.budget={flops: null, parameters: 0.3, latency: null}"
    plain = ["search.space=weights", "search.agent=ppo", "search.importance=l1", budget]
    settings = [word for setting in plain for word in ("--set", setting)]
    run("search", project, "--out", tmp_path / "search", *settings)
    plan = PruningPlan.load(tmp_path / "search" / "plan.json")
    run("prune", project, "--plan", tmp_path / "search" / "plan.json", "--out", tmp_path / "prune")
    cut = tmp_path / "prune" / "subnet.safetensors"
    run("train", project, "--subnet", cut, "--out", tmp_path / "train")
    before, after = (
        Checkpoint.load(tmp_path / stage / "subnet.safetensors").state
        for stage in ("prune", "train")
    )
    dense = Checkpoint.load("artifacts/pretrain/final.safetensors").state
    zero = {layer: before[f"{layer}.weight"] == 0 for layer in plan.weight_sparsity}
    total = sum(value.numel() for key, value in dense.items() if not is_buffer(key))
    assert 0.69 < sum(int(mask.sum()) for mask in zero.values()) / total < 0.75
    for layer, mask in zero.items():
        assert (after[f"{layer}.weight"][mask] == 0).all()
        assert (after[f"{layer}.weight"][~mask] != before[f"{layer}.weight"][~mask]).any()
    path = tmp_path / "train" / "subnet.safetensors"
    subnet = Checkpoint.load(path, trust=True).restore()
    assert nonzero(subnet) <= 0.3 * total


def is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("search.reward.kind=mine.reward:n2m", "has no function or class 'n2m'"),
        ("search.reward.kind=math:sqrt", "must be real number"),
        ("search.reward.kind=mine.broken:nan", "pruning: the reward mine.broken:nan of Measured("),
        ("search.importance=mine.importanc:peak", "cannot import 'mine.importanc'"),
        ("search.space=mine.reward:n2n", "mine.reward:n2n cannot be called"),
        ("search.encoder=mine.encoder:Maen", "did you mean Mean?"),
        ("search.policy=mine.policy:Seperate", "did you mean Separate?"),
        ("search.policy=mine.policy:Network", "mine.policy:Network cannot be called"),
        ("search.policy=mine.encoder:Mean", "expected a subclass of gnnrl.rl.policy.ActorCritic"),
        ("search.prior=reconstruction", "search.prior"),
        ("data.mean=null", "give data.mean and data.std"),
        ("data.name=mine.stripes:strips", "did you mean stripes"),
    ],
)
def test_what_is_wrong_with_ones_own_part_is_one_sentence(project, tmp_path, setting, said):
    words = ["--set", setting]
    if "encoder" in setting or "policy" in setting:
        words += ["--set", "search.agent=ppo", "--set", "search.own=null"]
    if "prior" in setting:
        words += ["--set", "search.space=weights", "--set", "search.importance=l1", "--set"]
        words += ["search.budget={flops: null, parameters: 0.3, latency: null}"]
    code, message = outcome("search", project, "--out", tmp_path / "out", *words)
    assert code == 1 and said in message and message.count("\n") == 1
