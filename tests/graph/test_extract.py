"""Which channels go together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from tests.graph.made import IMAGE, Made


def _groups(network: nn.Module) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {g.name: (g.size, g.layers) for g in extract(network, IMAGE).groups}


def test_an_addition_ties_its_inputs() -> None:
    groups = _groups(Made(lambda n, x: x + n.conv2(x)))
    assert groups == {"conv1": (8, ("conv1", "conv2"))}


def test_a_chain_is_free() -> None:
    groups = _groups(Made(lambda n, x: n.conv2(x)))
    assert groups == {"conv1": (8, ("conv1",)), "conv2": (8, ("conv2",))}


def test_a_concatenation_keeps_its_inputs_apart() -> None:
    groups = _groups(Made(lambda n, x: torch.cat([x, n.conv2(x)], 1), 16))
    assert groups == {"conv1": (8, ("conv1",)), "conv2": (8, ("conv2",))}


def test_padding_ties_single_channels() -> None:
    groups = _groups(Made(lambda n, x: F.pad(x[:, :4], (0, 0, 0, 0, 2, 2)) + n.conv2(x)))
    assert groups == {
        "conv1": (4, ("conv1", "conv2")),
        "conv1#2": (4, ("conv1",)),
        "conv2": (4, ("conv2",)),
    }


def test_named_parts_of_a_result_are_understood() -> None:
    groups = _groups(Made(lambda n, x: n.conv2(x) + x.max(dim=3, keepdim=True).values))
    assert groups == {"conv1": (8, ("conv1", "conv2"))}


def test_manual_group_norm_ties_channels_of_a_group_or_place() -> None:
    def middle(n: nn.Module, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.view(b, 4, c // 4 * h * w)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-5).sqrt()
        return n.conv2(y.view(b, c, h, w))

    assert "conv2" in _groups(Made(middle))


@pytest.mark.parametrize("name", ["resnet56", "shufflenet_v2", "mobilenet_v2"])
def test_a_graph_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    graph = extract(build_network(name), torch.zeros(1, 3, 32, 32))
    graph.save(tmp_path / "graph.json")
    loaded = ComputationalGraph.load(tmp_path / "graph.json")
    assert loaded == graph and loaded.digest == graph.digest
    assert cost(loaded) == cost(graph)


def test_neither_batch_nor_values_nor_weights_matter_to_the_graph() -> None:
    one = extract(build_network("resnet20"), torch.zeros(1, 3, 32, 32))
    other = extract(build_network("resnet20"), torch.randn(5, 3, 32, 32))
    assert one == other


def test_extraction_leaves_the_network_as_it_was() -> None:
    network = build_network("resnet20").train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    extract(network, torch.randn(2, 3, 32, 32))
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
