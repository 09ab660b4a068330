"""The graph as an agent sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnrl.pruning.importance import l1
from gnnrl.rl.observation import fault
from gnnrl.search.observations.channels import DYNAMIC, EDGES, KINDS, STATIC
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense


def space_of(name: str, view: str = "hierarchical") -> ChannelSpace:
    network, graph = dense(name)
    return ChannelSpace(graph, l1(network, graph), 0.5, view=view)


@pytest.mark.parametrize("name", ["resnet20", "shufflenet_v2", "basic_cnn"])
def test_observations_keep_the_contract(name):
    space = space_of(name)
    for keep in (None, np.full(space.size, 0.5)):
        observation = space.observation(keep)
        assert fault(observation) is None
        assert observation.x.shape[1] == len(KINDS) + 1 + len(STATIC) + len(DYNAMIC)
        assert observation.edge_attr.shape[1] == len(EDGES)
        assert len(observation.decision_index) == space.size
        assert observation.x.abs().max() <= 4


def test_the_width_of_the_features_does_not_depend_on_the_network():
    widths = {space_of(n).observation().x.shape[1] for n in ("resnet20", "basic_cnn")}
    assert len(widths) == 1


def test_cutting_changes_keep_ratio_and_slack_only():
    space = space_of("resnet20")
    whole, half = space.observation(), space.observation(np.full(space.size, 0.5))
    still = len(KINDS) + 1 + len(STATIC)
    assert torch.equal(whole.x[:, :still], half.x[:, :still])
    groups = half.x[half.decision_index, still]
    assert groups.max() < 0.6
    assert whole.x[0, -1] == pytest.approx(0.5, abs=1e-6)  # half of the flops has to go
    assert half.x[0, -1] < 0.0


def test_the_plain_view_has_no_level_of_channels():
    observation = space_of("basic_cnn", view="plain").observation()
    assert "channel_x" not in observation


def test_every_channel_belongs_to_its_group():
    space = space_of("resnet20")
    observation = space.observation()
    sizes = torch.bincount(observation.channel_index - observation.decision_index[0])
    assert sizes.tolist() == [g.size for g in space.graph.groups]


def test_edges_come_in_both_directions():
    observation = space_of("resnet20").observation()
    forward = {tuple(e) for e in observation.edge_index.t().tolist()}
    assert forward == {(b, a) for a, b in forward}
