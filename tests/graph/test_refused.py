"""Networks that are refused, with what to do, and parts that are left whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.cutting import flops_counted, randomise
from tests.graph.made import IMAGE, Made, refusal


def _branch(n: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def _item(n: nn.Module, x: Tensor) -> Tensor:
    return x * x.max().item()


def _nonzero(n: nn.Module, x: Tensor) -> Tensor:
    return x[x.sum((1, 2, 3)) > 0]


def _count(n: nn.Module, x: Tensor) -> Tensor:
    for _ in range(int(x.abs().sum())):
        x = n.conv2(x)
    return x


@pytest.mark.parametrize("middle", [_branch, _item, _nonzero, _count])
def test_what_depends_on_the_data_is_refused(middle: Callable[..., Tensor]) -> None:
    text = refusal(Made(middle))
    assert "depends on the data" in text and "module of its own" in text


class Part(nn.Module):
    """A part that holds something which cannot be read."""

    def __init__(self, how: Callable[..., Tensor]) -> None:
        super().__init__()
        self.how, self.conv2 = how, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.how(self, x))


class WithPart(nn.Module):
    def __init__(self, how: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv1, self.part = nn.Conv2d(3, 8, 1), Part(how)
        self.conv3, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv3(self.part(self.conv1(x))).mean((2, 3)))


def _fourier(n: nn.Module, x: Tensor) -> Tensor:
    return torch.fft.fft(x).real


def _write(n: nn.Module, x: Tensor) -> Tensor:
    x[:, 0].zero_()
    return x


@pytest.mark.parametrize(
    ("how", "part", "operation"),
    [(_fourier, "part", "fft_fft"), (_branch, "part", "gt"), (_item, "part", "item"),
     (_write, "part", "zero_")],
)  # fmt: skip
def test_a_part_that_cannot_be_read_is_left_whole(
    how: Callable[..., Tensor], part: str, operation: str
) -> None:
    network, image = randomise(WithPart(how)), torch.randn(2, 3, 8, 8)
    graph = extract(network, image)
    assert list(graph.whole) == [part] and f"'{operation}'" in graph.whole[part]
    plan = PruningPlan({"conv3": (1, 4, 6)})
    subnet = prune(network, graph, plan)
    hidden = network.conv3(network.part(network.conv1(image))).mean((2, 3))
    expected = hidden[:, [1, 4, 6]] @ network.head.weight[:, [1, 4, 6]].T + network.head.bias
    torch.testing.assert_close(subnet(image), expected)
    assert cost(graph, plan).parameters == sum(p.numel() for p in subnet.parameters())
    assert cost(graph, plan).flops == flops_counted(subnet, image)


def test_all_that_is_left_whole_is_named_at_once() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), Part(_fourier), Part(_branch), Part(_item), nn.Conv2d(8, 4, 1)
    )
    graph = extract(network, IMAGE)
    assert list(graph.whole) == ["1", "2", "3"]


def test_an_operation_without_a_rule_leaves_the_layers_beside_it_free() -> None:
    graph = extract(WithPart(_fourier), IMAGE)
    assert [g.name for g in graph.groups] == ["part.conv2", "conv3"]


def test_a_graph_says_what_is_left_whole_after_it_was_saved(tmp_path: Path) -> None:
    graph = extract(WithPart(_branch), IMAGE)
    graph.save(tmp_path / "graph.json")
    assert ComputationalGraph.load(tmp_path / "graph.json").whole == graph.whole


@pytest.mark.parametrize("how", [_fourier, _branch, _item])
def test_a_protected_part_is_not_looked_into(how: Callable[..., Tensor]) -> None:
    graph = extract(WithPart(how), IMAGE, protect=["part"])
    assert [g.name for g in graph.groups] == ["conv3"] and not graph.whole


class Mixed(nn.Module):
    """A part that gives several tensors, between layers that can be cut."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.conv1, self.part = nn.Conv2d(3, 8, 1), part
        self.linear, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).flatten(2).transpose(1, 2)
        y = self.part(y, y, y) if isinstance(self.part, nn.MultiheadAttention) else self.part(y)
        return self.head(self.linear(y[0]).relu().mean(1))


@pytest.mark.parametrize(
    ("part", "protect"),
    [(nn.MultiheadAttention(8, 2, batch_first=True), ["part"]), (nn.LSTM(8, 8), [])],
)
def test_parts_with_several_outputs_are_left_whole_and_counted(
    part: nn.Module, protect: list[str]
) -> None:
    network = Mixed(part)
    graph = extract(network, IMAGE, protect=protect)
    assert [g.name for g in graph.groups] == ["linear"]
    assert cost(graph).parameters == sum(p.numel() for p in network.parameters())


def test_a_batch_size_in_the_networks_python_is_refused() -> None:
    def one_by_one(n: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([n.conv2(x[i : i + 1]) for i in range(x.shape[0])])

    assert "not the same function" in refusal(Made(one_by_one))


def test_a_random_number_in_the_networks_python_is_refused() -> None:
    def noisy(n: nn.Module, x: Tensor) -> Tensor:
        return n.conv2(x) * float(torch.rand(()))

    assert "not the same function" in refusal(Made(noisy))


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_inputs_that_the_example_does_not_give_are_refused() -> None:
    assert "2 inputs (x, y)" in refusal(Two())
    assert "2 inputs (x, y)" in refusal(Two(), {"x": IMAGE, "z": IMAGE})


def test_an_image_it_cannot_take_is_refused() -> None:
    assert "shape" in refusal(build_network("basic_cnn"), torch.zeros(1, 4, 32, 32))


def test_protecting_what_is_not_there_is_refused() -> None:
    assert "'nowhere'" in refusal(build_network("basic_cnn"), protect=("nowhere",))


def test_protected_layers_keep_every_filter() -> None:
    network, image = build_network("resnet20"), torch.zeros(1, 3, 32, 32)
    free = extract(network, image)
    layer = free.groups[1].layers[0]
    held = extract(network, image, protect=[layer])
    assert all(layer not in group.layers for group in held.groups)
    assert held.num_units == free.num_units - free.groups[1].size
