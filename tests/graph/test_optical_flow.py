"""Optical flow: two images on one axis, their correlation, and one block used again and again."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import optical_flow

from gnnrl.graph.cost import cost
from tests.cutting import assert_cut_is_exact, assert_trains, randomise


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raft_small", "raft_large"])
def test_networks_of_optical_flow_are_cut_exactly_and_cost_what_pytorch_counts(name: str) -> None:
    network = randomise(getattr(optical_flow, name)(weights=None))
    images = tuple(torch.rand(2, 3, 128, 128) for _ in range(2))
    cut = assert_cut_is_exact(network, images, 0.5, seed=0, double=False)  # it makes floats itself
    assert cost(cut.surgeon.graph, cut.plan).flops < 0.6 * cost(cut.surgeon.graph).flops
    assert_trains(cut.subnet, images)
