"""What each section of params.yaml holds: types and ranges, no values."""

from __future__ import annotations

from typing import Literal

from gnnrl.params.training import Distillation, Recipe
from gnnrl.settings import (
    Count,
    CountOrNone,
    Float,
    Positive,
    Section,
    Seed,
    Weights,
)


class Data(Section):
    """Which images, and which of them score the search."""

    name: str
    root: str | None
    reward_images: Count
    reward_from: Literal["train", "test"]
    seed: Seed
    augmentation: str | None
    mean: tuple[Float, ...] | None
    std: tuple[Positive, ...] | None


class Network(Section):
    """The network that is compressed, and its images: channels, height, width."""

    name: str
    input_shape: tuple[Count, Count, Count]


class Pretrain(Section):
    """Where the dense network's weights come from."""

    seed: Seed
    weights: str | None
    sha256: str | None
    snapshots: tuple[CountOrNone, ...]
    recipe: Recipe


class Extract(Section):
    """How the network is read."""

    protect: tuple[str, ...]


class Prune(Section):
    """What the plan is applied to."""

    weights: Weights
    recalibration_images: CountOrNone
    compensation: Literal["none", "sequential"]
    calibration_images: Count


class Train(Section):
    """How the subnet is trained."""

    seed: Seed
    recipe: Recipe
    distillation: Distillation


class Evaluate(Section):
    """How dense network and subnet are compared."""

    batch_size: Count
    latency_batches: tuple[Count, ...]
    latency_rounds: Count


class Report(Section):
    """What the page is called and how fine its pictures are."""

    title: str
    dpi: Count
