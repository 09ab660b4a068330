"""Parts that can be taken out, and the graph without them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.removal import removable, without
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.dense import dense


def _graph_without(name: str, removed: list[str]):
    """The graph of the network in which the parts were replaced by hand."""
    network = build_network(name).eval()
    for part in removed:
        parent, _, last = part.rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())
    return extract(network, torch.zeros(1, 3, 32, 32))


def _graph(name: str):
    return dense(name)[1]


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("resnet20", ["layer1.0.conv1"]),
        ("resnet20", ["layer1.1", "layer3.2.conv2", "layer2.0.bn1"]),
        ("resnet20", ["layer1.0", "layer1.1", "layer1.2"]),
        ("vgg16_bn", ["features.3", "features.4", "features.10"]),
    ],
)
def test_the_graph_without_parts_costs_what_the_network_without_them_costs(name, removed):
    reduced = without(_graph(name), removed)
    by_hand = _graph_without(name, removed)
    assert cost(reduced).flops == cost(by_hand).flops
    assert cost(reduced).parameters == cost(by_hand).parameters
    assert [(g.size, g.layers) for g in reduced.groups] == [
        (g.size, g.layers) for g in by_hand.groups
    ]


def test_what_changes_the_shape_is_not_removable():
    parts = removable(_graph("resnet20"))
    assert "layer1.0.conv1" in parts
    assert "layer1" in parts
    assert not {"conv1", "layer2", "layer2.0", "layer2.0.conv1", "linear", "fc"} & set(parts)


def test_protected_parts_are_not_removable():
    graph = extract(
        build_network("resnet20").eval(), torch.zeros(1, 3, 32, 32), protect=["layer1.0.conv1"]
    )
    parts = removable(graph)
    assert "layer1.0.conv1" not in parts
    assert "layer1.0" not in parts
    assert "layer1.1" in parts


def test_removing_what_cannot_be_removed_is_refused():
    with pytest.raises(UserError, match=r"'layer2\.0' cannot be removed"):
        without(_graph("resnet20"), ["layer2.0"])


def test_what_lies_in_a_removed_part_goes_with_it():
    graph = _graph("sagemaker_5block")
    whole = without(graph, ["blocks.2"])
    both = without(graph, ["blocks.2", "blocks.2.conv2", "blocks.2.bn1"])
    assert both.digest == whole.digest


def test_an_operation_without_a_module_is_a_part():
    graph = _graph("resnet20")
    left = without(graph, ["relu_1"])
    assert {n.name for n in graph.nodes} - {n.name for n in left.nodes} == {"relu_1"}
    assert cost(left) == cost(graph)


def test_what_wrote_in_place_spares_the_tensor_that_stands_there_now():
    network = build_network("resnet18_cifar", input_shape=(3, 8, 8)).train()
    graph = extract(network, torch.zeros(1, 3, 8, 8))
    plan = PruningPlan(removed_layers=frozenset({"layer1.0.conv1", "layer1.0.bn1"}))
    subnet = prune(network, graph, plan)
    subnet(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in subnet.parameters())
