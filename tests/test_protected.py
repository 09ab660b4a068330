"""A part that cannot be read stays as it is through the whole pipeline, when it is protected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.pruning.importance import l1
from gnnrl.report.coverage import coverage, summary
from gnnrl.search.spaces.channels import ChannelSpace
from tests.stage_runs import run

ROOT = Path(__file__).parents[1]
STAGES = ("pretrain", "extract", "search", "prune", "train", "evaluate")


class Mixing(nn.Module):
    """Attention over the positions: no channel of it can be cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(channels, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return x + mixed.transpose(1, 2).reshape(x.shape)


def hybrid(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Sequential:
    """Convolutions, attention in the middle, convolutions."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes)]
    return nn.Sequential(
        *block(input_shape[0], 16), *block(16, 16), Mixing(16), *block(16, 32), *head
    )


@pytest.mark.slow
def test_a_protected_part_that_cannot_be_read_stays_as_it_is_from_images_to_subnet(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    settings = [
        f"network.name={Path(__file__).stem}:hybrid", "network.input_shape=[1, 8, 8]",
        "extract.protect=['6']", "data.reward_images=100", "pretrain.recipe.epochs=3",
        "search.evaluations=4", "search.batch=4", "train.recipe.epochs=1",
        "evaluate.latency_rounds=2",
    ]  # fmt: skip
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        run(stage, ROOT / "params.yaml", settings)
    dense, subnet = (
        Checkpoint.load(tmp_path / "artifacts" / name).restore()
        for name in ("pretrain/final.safetensors", "train/subnet.safetensors")
    )
    kept = {name: weight.shape for name, weight in dense.get_submodule("6").named_parameters()}
    assert {n: w.shape for n, w in subnet.get_submodule("6").named_parameters()} == kept
    found = json.loads((tmp_path / "artifacts/evaluate/metrics.json").read_text())["evaluate"]
    assert found["flops_kept"] <= 0.5 and found["flops"] < found["dense_flops"]


def test_the_part_is_pruned_where_it_is_not_protected():
    graph = extract(hybrid(10, (1, 8, 8)).eval(), torch.zeros(1, 1, 8, 8))
    assert ("6.attend", 4) in [(group.name, group.size) for group in graph.groups]


class Deciding(nn.Module):
    """What it does depends on the data."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.mean() > 0 else x


def test_the_report_of_coverage_says_what_is_left_whole_and_how_small_the_rest_can_get():
    network = hybrid(10, (1, 8, 8))
    network[6] = Deciding()
    covered = coverage(extract(network.eval(), torch.zeros(1, 1, 8, 8)))
    assert list(covered["whole"]) == ["6"] and "depends on the data" in covered["whole"]["6"]
    assert [group["name"] for group in covered["groups"]] == ["0", "7"]
    assert set(covered["kept"]) == {"3", "12"}
    assert 0 < covered["smallest"]["flops"] < 0.6 and 0 < covered["smallest"]["parameters"] < 0.4
    assert "left whole: 6: what it does depends on the data" in summary(covered)


def test_a_budget_below_what_can_be_reached_is_refused_with_the_number():
    network = hybrid(10, (1, 8, 8))
    network[6] = Deciding()
    graph = extract(network.eval(), torch.zeros(1, 1, 8, 8))
    least = coverage(graph)["smallest"]["flops"]
    with pytest.raises(UserError, match=f"{least:.4f} of the dense network"):
        ChannelSpace(graph, l1(network, graph), budget=least / 2)
