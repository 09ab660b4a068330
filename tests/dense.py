"""Dense networks with their graphs, read once for all tests of a process."""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn

from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network

SHAPE = (3, 32, 32)


def dense(name: str, shape: tuple[int, int, int] = SHAPE) -> tuple[nn.Module, ComputationalGraph]:
    """Return a network of ten classes in evaluation mode, a copy of one's own, and its graph."""
    network, graph = _read(name, shape)
    return copy.deepcopy(network), graph


@functools.cache
def _read(name: str, shape: tuple[int, int, int]) -> tuple[nn.Module, ComputationalGraph]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(name, 10, shape).eval()
    return network, extract(network, torch.zeros(1, *shape))
