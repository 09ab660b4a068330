"""What the benchmarks share: their data, the published networks, their options and their rows."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gnnrl.data.images import Images
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.data.splits import Splits
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.networks.weights import load_weights
from gnnrl.runtime import device, device_of
from gnnrl.search.spaces.joint import JointSpace
from gnnrl.shapes import Shape

DATA = Path(os.environ.get("GNNRL_BENCHMARK_DATA", "benchmarks/data"))
"""Made by `python -m benchmarks.data`: the folders `cifar10-fragment` and `weights`."""
IMAGES, WEIGHTS = DATA / "cifar10-fragment", DATA / "weights"
RESULTS = Path("benchmarks/results")
PUBLISHED = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of the images on which the published weights were trained."""
REWARD_IMAGES = 508
KEYS = ("network", "budget", "compensation", "kind", "method", "seed")
"""Columns that name one pruning run; kind: of the reward."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A trained network, its graph and its images.

    shared_calibration: all search seeds use the calibration images of seed 0.
    """

    network: nn.Module
    graph: ComputationalGraph
    train: Images
    reward: Images
    report: Images
    shared_calibration: bool = False


def load(name: str, images: Path, weights: Path, shared_calibration: bool = False) -> Setting:
    """Return a published ResNet; half of the test images is for the reward, half for the report."""
    recipe = DataRecipe(
        "image_folder",
        str(existing(images, "--images")),
        reward_images=REWARD_IMAGES,
        reward_from="test",
        mean=MEAN,
        std=STD,
    )
    splits = load_data(recipe, (3, 32, 32))
    network = build_network(name)
    load_weights(network, str(existing(weights / PUBLISHED[name], "--weights")))
    graph = extract(network.eval(), torch.zeros(1, 3, 32, 32))
    network = network.to(device())
    return Setting(network, graph, splits.train, splits.reward, splits.test, shared_calibration)


def existing(path: Path, option: str) -> Path:
    """Return the path, or end with one sentence where nothing is there."""
    if not path.exists():
        raise SystemExit(
            f"{path} does not exist: run `python -m benchmarks.data`, set GNNRL_BENCHMARK_DATA "
            f"to the folder that it made, or give another path with {option}"
        )
    return path


def options(description: str, out: str, data: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks share.  data: --images and --weights too."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    if data:
        parser.add_argument("--images", type=Path, default=IMAGES, help="an image folder")
        parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the published weights")
    parser.add_argument("--out", type=Path, default=RESULTS / out, help="rows are appended to it")
    return parser


def unseen(images: Path, shape: Shape, augmentation: str | None = None) -> Splits:
    """Return an image folder for a network that has seen its training images: 500 test images
    score, all others are unseen."""
    recipe = DataRecipe(
        "image_folder", str(existing(images, "--images")), reward_images=500, reward_from="test",
        augmentation=augmentation, mean=MEAN, std=STD,
    )  # fmt: skip
    return load_data(recipe, shape)


def append(path: Path, *rows: Mapping[str, object]) -> None:
    """Add rows to a CSV file; a new file gets a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def done(path: Path, wanted: Mapping[str, object]) -> bool:
    """Whether the file has a row with these values, so that its run need not be repeated."""
    if not path.exists():
        return False
    with path.open(newline="", encoding="utf-8") as file:
        return any(
            all(row[name] == str(value) for name, value in wanted.items())
            for row in csv.DictReader(file)
        )


def losses_for_savings(space: JointSpace) -> np.ndarray:
    """Return the measured error of removing each part, in parts of what that saves `[P]`."""
    return np.array([space.loss(part) for part in space.parts]) / space.saved_by_part()


def correct(network: nn.Module, images: Images) -> np.ndarray:
    """Return which images a network classifies correctly, bool `[N]`."""
    with torch.inference_mode():
        found = [network(x).argmax(1) == y for x, y in images.batches(256, device_of(network))]
    return torch.cat(found).cpu().numpy()


def packed(right: np.ndarray) -> str:
    """Return Booleans as hexadecimal digits, for a bootstrap over images."""
    return np.packbits(right).tobytes().hex()


def components(values: np.ndarray) -> tuple[float, float]:
    """Return the variance between plans and between trainings of one plan.

    values `[plans, trainings]`: the components of a one-way analysis of variance; the first is
    negative where plans differ less than chance alone lets them.
    """
    within = float(values.var(axis=1, ddof=1).mean())
    return float(values.mean(1).var(ddof=1)) - within / values.shape[1], within
