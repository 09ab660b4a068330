"""Exported files: the same bytes for the same network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.measurement.export import (
    onnx_bytes,
    onnx_difference,
    onnx_of,
    parts_of,
    program_bytes,
)


def test_a_program_holds_no_addresses_in_memory():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    one, keep = program_bytes(network, (1, 2, 2)), [object() for _ in range(1000)]
    assert b"graph_id" not in one
    assert program_bytes(network, (1, 2, 2)) == one and keep


class TwoInputs(nn.Module):
    """Reads numbers of words and which of them count, as language networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, words: Tensor, there: Tensor) -> Tensor:
        return self.head((self.words(words) * there[..., None]).sum(1))


def test_a_network_of_several_inputs_is_exported_with_their_names_and_a_free_batch_size():
    import onnx

    network = TwoInputs()
    data = onnx_of(network, {"words": torch.arange(6).view(2, 3), "there": torch.ones(2, 3)})
    assert [given.name for given in onnx.load_from_string(data).graph.input] == ["words", "there"]
    assert onnx_difference(network, data, torch.arange(9).view(3, 3), torch.rand(3, 3)) < 1e-6


class OfThreeAxes(nn.Module):
    """Attention without an axis of heads, which the exporter to ONNX has no translation for."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Undecided(nn.Module):
    """Its way depends on the numbers, so that there is no program of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_exported_is_refused_with_the_first_cause():
    with pytest.raises(UserError, match=r"^the network cannot be exported to ONNX \(\w+: only 4D"):
        onnx_of(OfThreeAxes(), {"x": torch.rand(2, 3, 4)})
    with pytest.raises(UserError, match=r"by torch.export \(\w+: Could not guard on data-depend"):
        program_bytes(Undecided(), (3,))


class OfWords(nn.Module):
    """Its own code drops rows by what they hold, between a part for images and one for words."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(2))
        self.words = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, images: Tensor) -> Tensor:
        words = self.body(images)
        return self.words(words[words.mean((1, 2)) > -9.0]).mean(1)


def test_parts_that_read_no_images_are_exported_as_well():
    parts = parts_of(OfWords().eval(), (3, 8, 8))
    assert {name: shape for name, (_, shape) in parts.items()} == {
        "body": (3, 8, 8), "words": (8, 64),
    }  # fmt: skip
    assert all(onnx_bytes(part, shape) for part, shape in parts.values())
