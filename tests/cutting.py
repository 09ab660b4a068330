"""What every cut has to show, for any network and any plan."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_filters
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.tracing.check import tensors
from gnnrl.tracing.flop_counter import FlopCounter
from gnnrl.tracing.trace import named_inputs
from tests.masking import Oracle, left_whole


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a value that matters, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim <= 1 or value.numel() in value.shape:  # scales and shifts
                low, high = (-0.2, 0.2) if name.endswith("bias") else (0.5, 1.5)
                value.uniform_(low, high, generator=generator)
            else:  # fan-in: activations keep their size
                fan_in = value[0].numel()
                value.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.uniform_(-0.2, 0.2, generator=generator)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def conditioned(network: nn.Module, image: Any) -> nn.Module:
    """Set batch statistics to what the image gives and scale the last layer, in place: values
    stay near one however deep the network, so that absolute tolerances mean something."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    with torch.no_grad():
        for norm in norms:
            norm.train().momentum = 1.0
        network(image)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
            norm.running_var.clamp_(min=0.1)
        largest = max(output.abs().max() for output in tensors(network(image)))
        for value in last.parameters():
            value /= largest
    return network


def random_plan(graph: ComputationalGraph, keep_ratio: float, seed: int) -> PruningPlan:
    """Every channel stays with probability `keep_ratio`; no operation is left without any."""
    generator = np.random.default_rng(seed)
    keep = generator.random(graph.num_units) < keep_ratio
    for group in graph.groups:
        keep[group.start + generator.integers(group.size)] = True
    for runs in graph.axes:
        if not any(first < 0 or keep[first : first + count].any() for first, count, _ in runs):
            keep[runs[0][0]] = True
    return PruningPlan(kept_filters(graph, keep))


def flops_counted(network: nn.Module, image: Any) -> int:
    """Multiply-accumulates of one image, counted by PyTorch while it runs."""
    one = fx.node.map_aggregate(tuple(named_inputs(network, image).values()), lambda v: v[:1])
    with FlopCounter() as counter, torch.no_grad():
        network(*one)
    return counter.get_total_flops() // 2


@dataclass(frozen=True)
class Cut:
    """A network cut by a random plan."""

    surgeon: Surgeon
    plan: PruningPlan
    subnet: nn.Module


def assert_equals_masked(
    network: nn.Module,
    subnet: nn.Module,
    plan: PruningPlan,
    image: Any,
    tolerance: float,
) -> None:
    """The cut network says what the dense one says without those channels."""
    _assert_says(subnet, Oracle(network, image), plan, image, tolerance)


def _assert_says(
    subnet: nn.Module, oracle: Oracle, plan: PruningPlan, image: Any, tolerance: float
) -> None:
    given = tuple(named_inputs(subnet, image).values())
    with torch.no_grad():
        found, expected = subnet(*given), oracle.says(plan, *given)
    scale = max(e.abs().max().item() for e in tensors(expected))
    assert scale > 0
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=tolerance * scale)


def doubled(image: Any) -> Any:
    """The same inputs in double precision, whole numbers as they are."""
    return fx.node.map_aggregate(image, lambda v: v.double() if v.is_floating_point() else v)


def assert_cut_is_exact(
    network: nn.Module,
    image: Any,
    keep_ratio: float,
    seed: int,
    double: bool = True,
    **settings: Any,
) -> Cut:
    """Cut with a random plan and hold the subnet against the masked network and its costs.

    settings: of `extract`.
    """
    graph = extract(network, image, **settings)
    plan = random_plan(graph, keep_ratio, seed)
    surgeon = Surgeon(network, graph)
    subnet, oracle = surgeon.cut(plan), Oracle(network, image, left_whole(network, graph))
    _assert_says(subnet, oracle, plan, image, 1e-4)
    if double:
        oracle.traced.double()
        _assert_says(copy.deepcopy(subnet).double(), oracle, plan, doubled(image), 1e-9)
    assert_costs_are_counted(graph, plan, subnet, image)
    assert_widths_are_kept(subnet, plan, image)
    return Cut(surgeon, plan, subnet)


def assert_costs_are_counted(
    graph: ComputationalGraph, plan: PruningPlan, subnet: nn.Module, image: Any
) -> None:
    """The cost told from the graph is the cost counted on the cut network."""
    told = cost(graph, plan)
    assert told.flops == flops_counted(subnet, image)
    assert told.parameters == sum(p.numel() for p in subnet.parameters())


def assert_widths_are_kept(subnet: nn.Module, plan: PruningPlan, image: Any) -> None:
    """The cut network read again has the widths that the plan kept."""
    again = extract(subnet, image)
    for layer, filters in plan.kept.items():
        assert len(again.layers[layer].filters.units) == len(filters), layer


def assert_trains(subnet: nn.Module, image: Any) -> None:
    """One step of training changes the weights and leaves the network running."""
    subnet = copy.deepcopy(subnet).train()
    optimiser = torch.optim.SGD(subnet.parameters(), lr=0.1)
    before = [p.detach().clone() for p in subnet.parameters()]
    loss = sum(t.square().mean() for t in tensors(subnet(*named_inputs(subnet, image).values())))
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert any((a != b).any() for a, b in zip(before, subnet.parameters(), strict=True))
    assert all(p.grad is not None for p in subnet.parameters())


def assert_survives_saving(cut: Cut, image: Any) -> None:
    """Weights loaded into a fresh cut of the same network give the same output."""
    fresh = randomise(cut.surgeon.cut(cut.plan), seed=99)
    with torch.no_grad():
        expected = list(tensors(cut.subnet(image)))
        assert not all(map(torch.equal, tensors(fresh(image)), expected))
        fresh.load_state_dict(cut.subnet.state_dict())
        assert all(map(torch.equal, tensors(fresh(image)), expected))
