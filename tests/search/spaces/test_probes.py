"""Looking at each group alone, and the plan that it speaks for."""

from __future__ import annotations

import numpy as np
import pytest

from gnnrl.pruning.allocation import sensitivity_curves
from gnnrl.pruning.importance import l1
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense

PRIOR = np.linspace(0.3, 0.8, 12)


@pytest.fixture(scope="module")
def spaces() -> dict[bool, ChannelSpace]:
    """Without and with a prior."""
    network, graph = dense("resnet20")
    scores = l1(network, graph)
    prior = {False: None, True: np.resize(PRIOR, len(graph.groups))}
    return {known: ChannelSpace(graph, scores, 0.5, prior=prior[known]) for known in prior}


def test_a_probe_cuts_one_group_and_nothing_else(spaces):
    space = spaces[False]
    dense, *probes = space.probes(0.5)
    assert space.cost(dense) == space.dense and len(probes) == space.size
    for probe, group in zip(probes, space.graph.groups, strict=True):
        cut = {name for name, filters in probe.kept.items() if dense.kept[name] != filters}
        assert cut == set(group.layers)
        for name in cut:
            gone = len(dense.kept[name]) - len(probe.kept[name])
            assert gone == group.size - group.size // 2


@pytest.mark.parametrize("known", [False, True])
def test_what_is_dear_stays_and_what_costs_nothing_goes(spaces, known):
    space = spaces[known]
    losses = np.append(1.0, np.where(np.arange(space.size) % 2, 2.0, 1.01))
    counts = space.counts(space.informed(0.5, losses.tolist()))
    ratios = counts / [g.size for g in space.graph.groups]
    assert ratios[1::2].mean() > ratios[::2].mean() + 0.2
    assert space.used(space.plan_of(counts)) <= 0.5


def test_the_action_of_keep_ratios_gives_them_back(spaces):
    for space in spaces.values():
        start = space.counts(np.linspace(0.4, 0.6, space.size))
        ratios = start / [g.size for g in space.graph.groups]
        again = space.counts(space.action_of(ratios))
        assert np.abs(again - start).max() <= 1


def test_curves_pass_through_what_was_measured_and_grow():
    sizes, left = np.array([8, 6, 5]), np.array([4, 3, 5])
    curves = sensitivity_curves(["a", "b", "c"], sizes, left, [0.5, 0.75, 0.4, 0.5])
    assert set(curves) == {"a", "b"}  # c could not be cut
    assert curves["a"][4] == pytest.approx(0.25)
    assert 0 < curves["b"][3] < 1e-5  # better without: as good as free
    for curve in curves.values():
        assert curve[0] == 0 and (curve.diff() > 0).all() and (curve.diff().diff() > 0).all()
