"""Early compression as a pipeline: what is kept, what it starts from, what it saves; bad input."""

from __future__ import annotations

import json

import pytest
import torch

from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.params import check
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report import sweep
from tests import stage_runs

PRESET = stage_runs.preset("early-compression")
SHORT = (
    "search.reward.training="
    "{epochs: 0.5, batch_size: 64, learning_rate: 0.05, momentum: 0.9, weight_decay: 0}"
)
SMALL = (
    "network.name=basic_cnn_eighth",
    "pretrain.recipe.epochs=2",
    "pretrain.snapshots=[1]",
    "train.recipe.epochs=1",
    "search.evaluations=8",
)


def run(stage: str, *settings: str) -> None:
    stage_runs.run(stage, PRESET, (*SMALL, *settings))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    for name in ("DVC_STAGE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "artifacts"
    torch.use_deterministic_algorithms(False)


def sliced(weight: torch.Tensor, rows: tuple[int, ...], columns: tuple[int, ...] | None):
    found = weight[list(rows)]
    return found if columns is None else found[:, list(columns)]


@pytest.mark.slow
@pytest.mark.parametrize("agent, weights", [("annealing", "initial"), ("reinforce", "1")])
def test_the_subnet_is_the_plan_and_starts_from_the_snapshot_bit_for_bit(agent, weights, checkout):
    """Searched on one snapshot, cut from another: the filters of the plan and no others."""
    settings = (f"search.agent={agent}", f"search.weights={weights}", "prune.weights=1")
    for stage in ("pretrain", "extract", "search", "prune", "train"):
        run(stage, *settings)

    graph = ComputationalGraph.load(checkout / "extract" / "graph.json")
    plan = PruningPlan.load(checkout / "search" / "plan.json")
    layers = ("conv1", "conv2", "conv3", "conv4")
    assert sum(len(plan.kept[name]) for name in layers) == round(0.3 * 120)
    assert min(len(plan.kept[name]) for name in layers) >= 1

    start = Checkpoint.load(checkout / "prune" / "subnet.safetensors").state
    source = Checkpoint.load(checkout / "pretrain" / "snapshots" / "1.safetensors").state
    before = None
    for number, name in enumerate(layers, start=1):
        kept = plan.kept[name]
        assert torch.equal(start[f"{name}.weight"], sliced(source[f"{name}.weight"], kept, before))
        for part in ("weight", "bias", "running_mean", "running_var"):
            key = f"bn{number}.{part}"
            assert torch.equal(start[key], source[key][list(kept)])
        before = kept

    subnet = Checkpoint.load(checkout / "train" / "subnet.safetensors").restore()
    own = cost(extract(subnet, torch.zeros(1, 1, 20, 20)))
    assert own == cost(graph, plan)
    images = 1138  # of an epoch: the same for both
    assert images * own.flops < 0.5 * images * cost(graph).flops


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["magnitude_sign", "snip", "grasp_shuffled", "random"])
def test_criteria_are_agents_of_the_same_pipeline(agent, checkout):
    for stage in ("pretrain", "extract"):
        run(stage)
    run("search", f"search.agent={agent}", "search.weights=final")
    figures = json.loads((checkout / "search" / "metrics.json").read_text())["search"]
    assert figures["flops_kept"] < 1
    if agent in ("snip", "grasp_shuffled"):
        assert figures["evaluations"] > figures["plans"] * 300 / 500  # gradients are charged


@pytest.mark.slow
def test_a_reward_after_a_short_training(checkout):
    for stage in ("pretrain", "extract"):
        run(stage)
    run("search", SHORT, "search.evaluations=20")
    figures = json.loads((checkout / "search" / "metrics.json").read_text())["search"]
    per_plan = (3 * 569 + 300) / 500  # half an epoch forward and back, and the reward images
    scored = figures["plans"] + len(figures["controls"])
    assert figures["evaluations"] == pytest.approx(scored * per_plan)


@pytest.mark.slow
def test_a_sparsity_that_would_empty_a_layer_ends_in_one_sentence_before_anything_is_computed(
    checkout,
):
    for stage in ("pretrain", "extract"):
        run(stage)
    code, said = stage_runs.outcome("search", PRESET, (*SMALL, "search.budget.sparsity=0.99"))
    assert code == 1
    assert "leaves 1 of 120 filters" in said and said.count("\n") == 1
    assert not (checkout / "search").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("search.weights=6",), "'search.weights' is 6, but no snapshot of epoch 6 is kept"),
        (("prune.weights=3",), "'prune.weights' is 3, but no snapshot of epoch 3 is kept"),
        (("search.agent=evolution",), "agent evolution, which cannot choose a number of filters"),
        (("search.space=channels",), "sparsity, which counts filters or single weights"),
        (("search.max_steps=2",), "decided in one go"),
        ((SHORT, "search.reward.race=100"), "a race, which scores subnets without training"),
        (("search.budget.sparsity=1",), "'search.budget.sparsity' must be less than 1"),
        (
            ("search.budget.sparsity=null", "search.budget.flops=0.5"),
            "set 'search.budget.sparsity'",
        ),
        (
            (
                "search.agent=snip",
                "search.space=channels",
                "search.budget.sparsity=null",
                "search.budget.flops=0.5",
            ),
            "agent ranking, which ranks filters or single weights",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_the_first_stage_in_one_sentence(settings, said, checkout):
    code, message = stage_runs.outcome("pretrain", PRESET, (*SMALL, *settings))
    assert code == 1
    assert said in message and message.count("\n") == 1
    assert not checkout.exists()


@pytest.mark.parametrize("name", ["early-compression", "early-compression-cifar10"])
def test_the_presets_are_what_they_say(name):
    params = check(read_yaml(stage_runs.preset(name)))
    assert params.search.space == "filters" and params.prune.weights == "initial"
    assert params.pretrain.recipe == params.train.recipe
    if name.endswith("cifar10"):
        recipe = params.pretrain.recipe
        said = (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum)
        assert said == (90, 256, 0.1, 0.9)
        assert recipe.milestones == (30, 60) and recipe.weight_decay == 1e-4
        assert params.pretrain.snapshots == (1, 3, 6, 90)


def state(sparsity, seed, accuracy, executor="success", name="x"):
    params = {"search": {"budget": {"sparsity": sparsity}, "seed": seed, "agent": "random"}}
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"m.json": {"data": {"evaluate": {"accuracy": accuracy}}}},
    }
    revision = {"rev": "1", "data": data}
    return {"name": name, "revs": [revision], "executor": {"state": executor}}


def test_a_sweep_becomes_a_table_of_means_and_deviations():
    done = [state(0.5, 0, 0.8), state(0.5, 1, 0.9), state(0.8, 0, 0.6)]
    shown = [{"rev": "workspace"}, {"experiments": [*done, state(0.5, 2, 0.1, "failed")]}]
    rows = sweep.experiments(shown)
    assert len(rows) == 3
    found = sweep.table(rows, ["search.agent"], "search.budget.sparsity", "evaluate.accuracy", True)
    assert found.splitlines() == [
        "| search.agent | sparsity 0.5 | sparsity 0.8 |",
        "| --- | --- | --- |",
        "| random | 85.00 ± 7.07 (2) | 60.00 (1) |",
    ]


def test_a_table_of_what_nobody_measured_is_refused():
    rows = sweep.experiments([{"experiments": [state(0.5, 0, 0.8)]}])
    with pytest.raises(UserError, match=r"no experiment has 'accuracy'; known are evaluate.accur"):
        sweep.table(rows, ["search.agent"], "search.budget.sparsity", "accuracy")
    with pytest.raises(UserError, match="no finished experiment"):
        sweep.experiments([{"experiments": [state(0.5, 0, 0.8, "queued")]}])


@pytest.mark.slow
def test_masks_of_single_weights_go_through_the_pipeline(checkout):
    preset = stage_runs.preset("early-compression-mlp")
    small = ("pretrain.recipe.epochs=1", "train.recipe.epochs=1", "search.evaluations=4")
    for stage in ("pretrain", "extract", "search", "prune", "train", "evaluate", "report"):
        stage_runs.run(stage, preset, small)
    plan = PruningPlan.load(checkout / "search" / "plan.json")
    assert set(plan.masks) == {"fc1", "fc2", "fc3"}
    subnet = Checkpoint.load(checkout / "train" / "subnet.safetensors").restore()
    left = sum(int((p != 0).sum()) for p in subnet.parameters())
    assert left == round(0.1 * 266_200)
    figures = json.loads((checkout / "evaluate" / "metrics.json").read_text())["evaluate"]
    assert figures["nonzero_parameters"] == left
