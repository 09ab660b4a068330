"""The observation of an agent that chooses single filters.

It is the observation of channels, with a node for each unit joined to its channel group.
"""

# U: units   N: nodes (operations, groups, then units)   E: edges

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.importance import Importance
from gnnrl.rl.subsets import Choice
from gnnrl.search.observations.channels import SCORES, View

FILTER = (*SCORES, "is filter")
"""Columns that follow those of a group; zero for all nodes that are no filters."""


def filter_observation(graph: ComputationalGraph, importance: Importance, choice: Choice) -> Data:
    """Return the graph with a node for every filter, and how many of them are kept."""
    view = View(graph, importance, hierarchical=True)
    sizes = np.array([group.size for group in graph.groups])
    seen = view.data(sizes, np.arange(graph.num_units), slack=0.0)
    nodes, units = len(seen.x), graph.num_units
    owner = seen.channel_index  # [U]
    own = torch.cat([seen.channel_x[:, : len(SCORES)], torch.ones(units, 1)], dim=1)
    above = torch.cat([seen.x, seen.x.new_zeros(nodes, len(FILTER))], dim=1)
    seen.x = torch.cat([above, torch.cat([seen.x[owner], own], dim=1)])
    below = torch.arange(nodes, nodes + units)
    seen.edge_index, seen.edge_attr = _joined(seen.edge_index, seen.edge_attr, below, owner)
    seen.decision_index = below
    del seen.channel_x, seen.channel_index
    seen.keep = torch.tensor([choice.keep])
    seen.part, seen.least = choice.part, choice.least
    seen.score = torch.cat([importance[group.name] for group in graph.groups]).float()
    return seen


def ranks(observation: Data) -> Tensor:
    """Return the rank of each filter in its group, 1: the most important `[U]`."""
    own = observation.x[observation.decision_index, -len(FILTER) :]
    return own[:, FILTER.index("rank")]


def _joined(
    edge_index: Tensor, edge_attr: Tensor, below: Tensor, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """Edges from filters to their group and back, in two kinds of their own."""
    up, down = torch.stack([below, owner]), torch.stack([owner, below])
    kinds = torch.eye(2).repeat_interleave(len(below), 0)
    width = edge_attr.shape[1]
    attributes = torch.cat(
        [
            torch.cat([edge_attr, edge_attr.new_zeros(len(edge_attr), 2)], dim=1),
            torch.cat([kinds.new_zeros(len(kinds), width), kinds], dim=1),
        ]
    )
    return torch.cat([edge_index, up, down], dim=1), attributes
