"""A look at images before a search: what losing channels costs, which ones gates would close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.bottleneck import Bottleneck, BottleneckSettings, bottleneck
from gnnrl.pruning.compensation.moments import Calibration, collect, reconstruction
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator


@dataclass(frozen=True)
class Looked:
    """What a look at calibration images told: moments, importance, residual curves."""

    calibration: Calibration
    importance: Importance
    curves: Mapping[str, Tensor]


def look(
    network: nn.Module, graph: ComputationalGraph, images: Tensor, generator: torch.Generator
) -> Looked:
    """Measure on calibration images what losing channels costs."""
    analysis = Surgeon(network.eval(), graph).analysis
    calibration = collect(analysis, images, generator=generator)
    return Looked(calibration, *reconstruction(network, analysis, calibration))


def train_gates(
    network: nn.Module,
    graph: ComputationalGraph,
    images: Tensor,
    budget: Budget,
    seed: int,
    settings: BottleneckSettings,
) -> Bottleneck:
    """Find by gradients, on calibration images, which channels the budget has room for."""
    return bottleneck(
        Surgeon(network.eval(), graph).analysis,
        images,
        fraction=budget.fraction,
        resource=budget.resource,
        generator=generator(seed, "bottleneck"),
        settings=settings,
    )
