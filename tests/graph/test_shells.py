"""Networks whose own code is no graph: what flows between their parts, and what keeps channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.cutting import random_plan, randomise

IMAGE = torch.zeros(2, 3, 8, 8)


class Part(nn.Module):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, 6, 3, padding=1)
        self.second = nn.Conv2d(6, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Shell(nn.Module):
    """Finds the brightest image, by which nothing can be traced, and runs two parts."""

    calibrated = "an attribute of its own"

    def __init__(self, reads: bool = False, unused: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.reads = Part(3, 5), Part(5, 4), reads
        self.unused = nn.Conv2d(5, 5, 1) if unused else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        brightest = int(x.mean((1, 2, 3)).argmax())
        found = self.body(x)
        if self.unused is not None and brightest > 100:
            found = self.unused(found)
        given = self.head(found)
        level = found.mean() if self.reads else torch.zeros(found.shape[-1])
        return {"best": given[brightest], "all": given, "level": level}


def width(graph: ComputationalGraph) -> int:
    """Channels between the two parts that can be removed."""
    return int((graph.layers["body.second"].filter_units >= 0).sum())


def test_channels_flow_from_part_to_part_where_the_shell_hands_them_on() -> None:
    graph = extract(Shell(), IMAGE)
    assert width(graph) == 5
    assert (graph.layers["head.second"].filter_units < 0).all()
    assert "Shell" in graph.whole and "its parts are pruned" in graph.whole["Shell"]


@pytest.mark.parametrize("shell", [Shell(reads=True), Shell(unused=True)], ids=["reads", "branch"])
def test_channels_that_the_shell_may_read_are_kept(shell: Shell) -> None:
    assert width(extract(shell, IMAGE)) == 0


def test_the_subnet_is_of_the_same_kind_and_equals_the_masked_network() -> None:
    shell = randomise(Shell())
    graph = extract(shell, IMAGE)
    plan = random_plan(graph, 0.6, 1)
    subnet = prune(shell, graph, plan)  # compares them itself
    assert isinstance(subnet, Shell) and isinstance(subnet.body, Part)
    assert subnet.calibrated == shell.calibrated
    kept = torch.zeros(6, dtype=torch.bool)
    kept[list(plan.kept["body.first"])] = True
    between = torch.zeros(5, dtype=torch.bool)
    between[list(plan.kept["body.second"])] = True
    with torch.no_grad():
        shell.body.first.weight[~kept], shell.body.first.bias[~kept] = 0.0, 0.0
        shell.body.second.weight[~between], shell.body.second.bias[~between] = 0.0, 0.0
        gone = torch.ones(6, dtype=torch.bool)
        gone[list(plan.kept.get("head.first", range(6)))] = False
        shell.head.first.weight[gone], shell.head.first.bias[gone] = 0.0, 0.0
        x = torch.rand(3, 3, 8, 8)
        found, expected = subnet(x), shell(x)
    for name in ("best", "all"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert cost(graph, plan).parameters == sum(p.numel() for p in subnet.parameters())


def test_the_graph_does_not_depend_on_the_weights() -> None:
    first, second = randomise(Shell(), 1), randomise(Shell(), 2)
    assert extract(first, IMAGE).digest == extract(second, IMAGE).digest


def test_a_subnet_is_read_and_cut_again() -> None:
    shell = randomise(Shell())
    graph = extract(shell, IMAGE)
    once = prune(shell, graph, PruningPlan({"body.first": (0, 1, 2, 3)}))
    again = extract(once, IMAGE)
    twice = prune(once, again, PruningPlan({"body.first": (1, 3)}))
    assert twice.body.first.out_channels == 2 and twice.body.second.in_channels == 2
    with torch.no_grad():
        assert twice(torch.rand(1, 3, 8, 8))["all"].shape == (1, 4, 8, 8)


class NoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x if bool(x.mean() > 0) else x * self.weight.view(-1, 1, 1)


def test_a_network_without_parts_is_refused_as_before() -> None:
    with pytest.raises(UserError, match="depends on the data"):
        extract(NoParts(), IMAGE)
