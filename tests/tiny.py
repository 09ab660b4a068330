"""A network of three layers, a few images and a reward that counts, for runs of the stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.data.arrays import array_source
from gnnrl.graph.extract import extract

SHAPE, CLASSES, WIDTH = (3, 8, 8), 4, 8
EVALUATED: list[float] = []
"""The rewards given so far in this process."""


def network(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Sequential:
    """Two convolutions, the second of which may go, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], WIDTH, 3, padding=1),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, num_classes),
    )


def images(root: Path, input_shape: tuple[int, int, int], transform: Any) -> Any:
    """Images of four brightnesses, under noise."""

    def read(split: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed({"train": 0, "test": 1}[split])
        labels = torch.arange(160) % CLASSES
        noise = torch.randint(90, (160, *SHAPE), generator=generator)
        return (noise + 50 * labels[:, None, None, None]).to(torch.uint8), labels

    return array_source("tiny", tuple("abcd"), read, input_shape, transform)


def reward(measured: Any) -> float:
    """Minus the loss."""
    EVALUATED.append(-measured.loss)
    return -measured.loss


def write_dense(folder: Path) -> None:
    """Write what pretraining and extraction leave: `final.safetensors` and `graph.json`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = network(CLASSES, SHAPE).train()
        dense(torch.rand(64, *SHAPE))
    checkpoint = Checkpoint.of(dense.eval(), "tests.tiny:network", CLASSES, SHAPE)
    checkpoint.save(folder / "final.safetensors")
    extract(dense, torch.zeros(1, *SHAPE)).save(folder / "graph.json")


SETTINGS = (
    "data.name=tests.tiny:images",
    "data.reward_images=40",
    "data.mean=[0.5, 0.5, 0.5]",
    "data.std=[0.25, 0.25, 0.25]",
    "network.name=tests.tiny:network",
    f"network.input_shape={list(SHAPE)}",
    "search.reward.kind=tests.tiny:reward",
    "search.evaluations=2",
    "search.batch=2",
    "search.calibration_images=40",
    "search.gnn.hidden=8",
    "search.gnn.layers=1",
    "search.ppo.n_epochs=2",
    "prune.calibration_images=40",
    "prune.recalibration_images=40",
)
"""Of every run: these images, this network, this reward, and little of everything."""


def alone_with_dense(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder with the dense network, outside DVC and with scratch of its own."""
    write_dense(folder)
    monkeypatch.setenv("GNNRL_SCRATCH", str(folder / "scratch"))
    for name in ("DVC_STAGE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    torch.use_deterministic_algorithms(False)
