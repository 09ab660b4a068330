"""The images of each client, and the network that all of them train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl.data.images import Labelled
from gnnrl.data.load import load_data
from gnnrl.data.settings import DataRecipe

SHAPE, CLASSES = (1, 8, 8), 10
LEAST = 10
"""Training images that a client has at least."""


class Digits(nn.Module):
    """An encoder that clients share, and a head that each may keep for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[N, 10]`."""
        return self.head(self.encoder(x))


@dataclass(frozen=True, eq=False)
class Part:
    """What one client has.  validation: images that its agent scores selections on."""

    train: Labelled
    validation: Labelled
    test: Labelled


def parts(clients: int, beta: float, seed: int) -> list[Part]:
    """Split the handwritten digits over clients, each with its own mix of classes.

    The shares of a class are drawn from a Dirichlet distribution of concentration beta, the same
    for training and test images (Hsu et al. 2019).  They are drawn anew until every client has
    `LEAST` training images and one test image.
    """
    splits = load_data(DataRecipe(name="digits", reward_images=1, seed=seed), SHAPE)
    random = np.random.default_rng(seed)
    while True:
        shares = random.dirichlet([beta] * clients, CLASSES)
        train = dealt(splits.train.labels.numpy(), shares, random)
        test = dealt(splits.test.labels.numpy(), shares, random)
        if min(map(len, train)) >= LEAST and min(map(len, test)) >= 1:
            break
    made = []
    for mine, unseen in zip(train, test, strict=True):
        held, rest = np.split(random.permutation(mine), [len(mine) // 5])
        chosen = [splits.train.take(torch.from_numpy(np.sort(which))) for which in (rest, held)]
        made.append(Part(*chosen, splits.test.take(torch.from_numpy(unseen))))
    return made


def dealt(labels: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Return the images of each client, ascending; shares `[classes, clients]` of each class."""
    mine: list[list[np.ndarray]] = [[] for _ in range(shares.shape[1])]
    for label, share in enumerate(shares):
        members = random.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(share)[:-1] * len(members)).astype(int)
        for own, part in zip(mine, np.split(members, ends), strict=True):
            own.append(part)
    return [np.sort(np.concatenate(own)) for own in mine]
