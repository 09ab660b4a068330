"""Exported files: the same bytes for the same network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnnrl.measurement.export import onnx_difference, onnx_of, program_bytes


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
