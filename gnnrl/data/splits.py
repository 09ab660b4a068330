"""Which images fit a network, which score a search, and which are read once, at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from gnnrl.data.images import Labelled
from gnnrl.errors import UserError
from gnnrl.runtime import generator

ORIGINS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Listing:
    """Images that are known but not read yet.

    labels: [N], whole numbers from 0, of which each split has its share: classes, or all 0.
    read: images at the given indices, to measure with.
    read_to_train: the same to train on, where that differs (parts of files cut at random).
    """

    labels: Tensor
    read: Callable[[Tensor], Labelled]
    read_to_train: Callable[[Tensor], Labelled]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it is published: training and test images, neither opened before its use.

    targets: what it has for an image: classes, masks, boxes or none.
    """

    name: str
    classes: tuple[str, ...]
    train: Callable[[], Listing]
    test: Callable[[], Listing]
    targets: str = "classes"


class Splits:
    """The disjoint splits train, reward and test, each read at its first use.

    The reward images come out of the training images, or, for a network that has been trained
    on all of these, out of the test images; the rest of those is then the test split.
    """

    def __init__(self, source: Source, *, reward_images: int, reward_from: str, seed: int) -> None:
        if reward_from not in ORIGINS:
            raise UserError(f"reward_from is {reward_from!r}, expected one of {', '.join(ORIGINS)}")
        if reward_images < 1:
            raise UserError(f"reward_images is {reward_images}, expected at least 1")
        self.source, self.classes, self.num_classes = source, source.classes, len(source.classes)
        self.reward_images, self.reward_from, self.seed = reward_images, reward_from, seed

    @cached_property
    def train(self) -> Labelled:
        """The images a network is fitted to."""
        rest = self._carved[1] if self.reward_from == "train" else None
        listing = self._listings["train"]()
        return listing.read_to_train(_all(listing) if rest is None else rest)

    @cached_property
    def reward(self) -> Labelled:
        """The images which score what a search finds."""
        return self._listings[self.reward_from]().read(self._carved[0])

    def figures(self) -> dict[str, int | str]:
        """Return how many images train and score, and where those that score come from."""
        return {
            "reward_images": len(self.reward),
            "reward_images_from": self.reward_from,
            "train_images": len(self.train),
        }

    @cached_property
    def test(self) -> Labelled:
        """The images for the final figures: only `evaluate` may ask for them."""
        listing = self._listings["test"]()
        return listing.read(self._carved[1] if self.reward_from == "test" else _all(listing))

    def sizes(self) -> dict[str, int]:
        """Return how many images each split has, without reading any."""
        count = {name: len(listing().labels) for name, listing in self._listings.items()}
        count[self.reward_from] -= self.reward_images
        return {"train": count["train"], "reward": self.reward_images, "test": count["test"]}

    @cached_property
    def _listings(self) -> dict[str, Callable[[], Listing]]:
        return {"train": cache(self.source.train), "test": cache(self.source.test)}

    @cached_property
    def _carved(self) -> tuple[Tensor, Tensor]:
        """Indices of the reward images and of the others they are taken from."""
        labels = self._listings[self.reward_from]().labels
        if self.reward_images >= len(labels):
            raise UserError(
                f"reward_images is {self.reward_images}, but {self.source.name} has only "
                f"{len(labels)} {self.reward_from} images: some must remain, take fewer"
            )
        return carve(labels, self.reward_images, generator(self.seed, "reward images"))


def _all(listing: Listing) -> Tensor:
    return torch.arange(len(listing.labels))


def carve(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` indices, every class in proportion; return them and the others, ascending."""
    order = torch.randperm(len(labels), generator=generator)
    members = [order[labels[order] == label] for label in labels.unique()]
    exact = [count * len(indices) / len(labels) for indices in members]
    taken = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (taken[i] - exact[i], i))
    for i in by_remainder[: count - sum(taken)]:
        taken[i] += 1
    chosen = torch.cat([indices[:n] for indices, n in zip(members, taken, strict=True)])
    others = torch.cat([indices[n:] for indices, n in zip(members, taken, strict=True)])
    return chosen.sort().values, others.sort().values
