"""Whatever the network: the cut is the masked network, and costs what the graph says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.cutting import (
    assert_cut_is_exact,
    assert_survives_saving,
    assert_trains,
    randomise,
)
from tests.graph.generator import networks
from tests.graph.steps import SIDE

CHECKS = dict(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


SETTINGS = st.fixed_dictionaries(
    {"attention": st.sampled_from(("heads", "width")), "embedding": st.booleans()}
)


def _hold(network: nn.Module, seed: int, keep_ratio: float, settings: dict) -> None:
    network = randomise(network, seed)
    image = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    cut = assert_cut_is_exact(network, image, keep_ratio, seed, **settings)
    assert_trains(cut.subnet, image)
    assert_survives_saving(cut, image)


@given(
    network=networks(),
    seed=st.integers(0, 1000),
    keep_ratio=st.sampled_from((0.2, 0.5, 0.8)),
    how=SETTINGS,
)
@settings(max_examples=12, derandomize=True, **CHECKS)
def test_random_networks_are_cut_exactly(
    network: nn.Module, seed: int, keep_ratio: float, how: dict
) -> None:
    _hold(network, seed, keep_ratio, how)


@pytest.mark.slow
@given(
    network=networks(),
    seed=st.integers(0, 1000),
    keep_ratio=st.sampled_from((0.2, 0.5, 0.8)),
    how=SETTINGS,
)
@settings(max_examples=1000, **CHECKS)
def test_a_thousand_random_networks_are_cut_exactly(
    network: nn.Module, seed: int, keep_ratio: float, how: dict
) -> None:
    _hold(network, seed, keep_ratio, how)
