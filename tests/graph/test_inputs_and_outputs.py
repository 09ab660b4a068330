"""Several inputs, and outputs in tuples, lists, dictionaries and objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnrl.graph.extract import extract
from gnnrl.pruning.surgery import prune
from tests.cutting import (
    assert_costs_are_counted,
    assert_cut_is_exact,
    assert_trains,
    random_plan,
    randomise,
)

IMAGE = torch.randn(2, 3, 8, 8)


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


class Heads(nn.Module):
    """A trunk with two answers, in whatever they are handed out."""

    def __init__(self, gives: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.trunk, self.hidden = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1)
        self.a, self.b, self.gives = nn.Conv2d(6, 4, 1), nn.Linear(8, 5), gives

    def forward(self, x: Tensor) -> Any:
        x = self.trunk(x).relu()
        return self.gives(self.a(self.hidden(x).relu()), self.b(x.mean((2, 3))))


GIVES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, {"b": (b, a)}],
    "dictionary": lambda a, b: {"a": a, "b": b},
    "object": Answer,
}


@pytest.mark.parametrize("how", GIVES)
def test_whatever_a_network_gives_is_kept(how: str) -> None:
    network = randomise(Heads(GIVES[how]))
    graph = extract(network, IMAGE)
    assert [g.layers for g in graph.groups] == [("trunk",), ("hidden",)]
    cut = assert_cut_is_exact(network, IMAGE, 0.5, seed=0)
    assert type(cut.subnet(IMAGE)) is type(network(IMAGE))


class Pair(nn.Module):
    """An image and tokens, optionally weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 8, 3), nn.Embedding(10, 8)
        self.mixed, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, image: Tensor, tokens: Tensor, weight: Tensor | None = None) -> Tensor:
        x = self.conv(image).relu().mean((2, 3)) + self.embed(tokens).mean(1)
        x = x if weight is None else x * weight
        return self.head(self.mixed(x).relu())


TOKENS, WEIGHT = torch.randint(0, 10, (2, 5)), torch.rand(2, 1)


@pytest.mark.parametrize(
    "inputs",
    [
        (IMAGE, TOKENS),
        (IMAGE, TOKENS, WEIGHT),
        {"image": IMAGE, "tokens": TOKENS},
        {"tokens": TOKENS, "image": IMAGE, "weight": WEIGHT},
    ],
)
def test_several_inputs_are_given_as_a_tuple_or_by_name(inputs: Any) -> None:
    network = randomise(Pair())
    cut = assert_cut_is_exact(network, inputs, 0.5, seed=0)
    graph = cut.surgeon.analysis.graph
    assert [g.layers for g in graph.groups] == [("conv",), ("mixed",)]
    assert cut.subnet.embed.weight.shape == (10, len(cut.plan.kept["conv"]))
    assert_trains(cut.subnet, inputs)


def test_an_input_that_is_not_given_keeps_its_default() -> None:
    network = randomise(Pair())
    graph = extract(network, (IMAGE, TOKENS))
    assert [n.name for n in graph.nodes if n.operation == "input"] == ["image", "tokens"]


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "line": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.ConvTranspose1d(8, 6, 3),
                                   nn.BatchNorm1d(6), nn.Conv1d(6, 4, 1)), (3, 12)),
    "volume": (lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.GroupNorm(2, 8),
                                     nn.ConvTranspose3d(8, 6, 2, 2), nn.Conv3d(6, 4, 1)),
               (3, 5, 5, 5)),
    "up": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, dilation=2), nn.Upsample(scale_factor=2),
                                 nn.Conv2d(8, 16, 1), nn.PixelShuffle(2), nn.Conv2d(4, 4, 1)),
           (3, 8, 8)),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 3, groups=4),
                                      nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 1)), (3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_every_dimension_are_cut_exactly(name: str) -> None:
    make, shape = LAYERS[name]
    network, image = randomise(make()), torch.randn(2, *shape)
    assert extract(network, image).groups
    assert_cut_is_exact(network, image, 0.5, seed=0)


def test_a_head_shared_by_several_levels_is_cut_once() -> None:
    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
            self.head = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))

        def forward(self, x: Tensor) -> list[Tensor]:
            levels = [self.a(x)]
            levels.append(self.b(levels[0]))
            return [self.head(level) for level in levels]

    network = randomise(Levels())
    graph = extract(network, IMAGE)
    assert [g.layers for g in graph.groups] == [("a", "b"), ("head.0",)]
    assert_cut_is_exact(network, IMAGE, 0.5, seed=0)
    plan = random_plan(graph, 0.5, seed=1)
    assert_costs_are_counted(graph, plan, prune(network, graph, plan), IMAGE)
