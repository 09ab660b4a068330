"""The observation of an agent that decides channel groups and removable parts together.

It is the observation of channels, with a node for each part: joined to its operations, with the
columns of a group.  The agent's head is the same for both, and so is the width of all tables: an
agent that was trained on channels alone can go on here.
"""

# N: nodes (operations, groups, then parts)   P: parts   E: edges

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from gnnrl.graph import cost_model
from gnnrl.graph.cost_model import elements
from gnnrl.graph.graph import Node
from gnnrl.search.observations.channels import DYNAMIC, EDGES, KINDS, STATIC, View
from gnnrl.search.observations.common import one_hot, two_way


class JointView:
    """Adds the parts of a network to observations of its channels."""

    def __init__(self, view: View, parts: Sequence[Sequence[Node]]) -> None:
        graph, self._parts = view.graph, len(parts)
        flops, places = cost_model.flops(graph), graph.places
        dense, size = (
            max(flops.without(()), 1),
            max(sum(elements(graph, n) for n in graph.nodes), 1),
        )
        inside = [{node.name for node in part} for part in parts]
        saved = [1.0 - flops.without(names) / dense for names in inside]
        values: dict[str, Any] = {
            "width": [math.log2(max(part[-1].width, 1)) / 12 for part in parts],
            "input width": [math.log2(len(part)) / 6 for part in parts],
            "resolution": [math.log2(max(math.prod(p[-1].shape[1:]), 1)) / 16 for p in parts],
            "flops share": np.sqrt(saved),
            "parameter share": np.sqrt([sum(elements(graph, n) for n in p) / size for p in parts]),
            "depth": [places[part[0].name] / len(graph.nodes) for part in parts],
        }
        kinds = one_hot(["part"] * len(parts), KINDS)
        static = np.concatenate([kinds, STATIC.table(len(parts), values)], axis=1)
        self._static = torch.from_numpy(static.astype(np.float32))
        first = len(graph.nodes) + len(graph.groups)
        made = EDGES.index("made by")
        pairs = [
            (first + p, places[node.name], made) for p, part in enumerate(parts) for node in part
        ]
        self._edges = two_way(pairs, len(EDGES))
        self._decisions = torch.arange(first, first + len(parts))

    def joined(self, seen: Data, stays: np.ndarray) -> Data:
        """Return an observation of channels with the parts; stays `[P]`: 0 where one is removed."""
        slack = float(seen.x[0, -1])
        values: dict[str, Any] = {"keep ratio": stays, "slack": slack}
        dynamic = torch.from_numpy(DYNAMIC.table(self._parts, values).astype(np.float32))
        edge_index, edge_attr = self._edges
        seen.x = torch.cat([seen.x, torch.cat([self._static, dynamic], dim=1)])
        seen.edge_index = torch.cat([seen.edge_index, edge_index], dim=1)
        seen.edge_attr = torch.cat([seen.edge_attr, edge_attr])
        seen.decision_index = torch.cat([seen.decision_index, self._decisions])
        return seen
