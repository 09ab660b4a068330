"""Attention is cut exactly, in whatever code it is written."""

from __future__ import annotations

import pytest
import torch

from gnnrl.graph.extract import extract
from tests.cutting import assert_cut_is_exact, assert_survives_saving, assert_trains, randomise
from tests.graph.transformers import GROUPS, Transformer


@pytest.mark.parametrize("how", GROUPS)
def test_heads_are_cut_exactly(how: str) -> None:
    network, image = randomise(Transformer(how)), torch.randn(2, 3, 8, 8)
    graph = extract(network, image)
    assert not graph.whole
    assert sorted(g.size for g in graph.groups) == sorted((*GROUPS[how], 24))
    cut = assert_cut_is_exact(network, image, 0.5, seed=1)
    assert_trains(cut.subnet, image)
    assert_survives_saving(cut, image)
