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


def test_the_part_has_to_be_protected():
    with pytest.raises(UserError, match=r"6\.attend.*extract\.protect"):
        extract(hybrid(10, (1, 8, 8)).eval(), torch.zeros(1, 1, 8, 8))
