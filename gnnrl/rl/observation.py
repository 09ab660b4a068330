"""The observation of a graph environment: its fields, and how several become one batch."""

# N: nodes   E: edges   A: decisions   C: channels   G: different graphs   B: observations

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

ActionKind = Literal["continuous", "binary", "categorical", "subset"]
ACTION_KINDS = ("continuous", "binary", "categorical", "subset")
REQUIRED = ("x", "edge_index", "edge_attr", "decision_index")
OPTIONAL = ("channel_x", "channel_index", "action_mask", "prior", "decided_index", "decided")
SUBSET = ("keep", "part", "least", "score")  # of observations whose decisions form a subset
POINTERS = ("edge_index", "decision_index", "channel_index", "decided_index")
STRUCTURE = (*POINTERS, "part", "least")


def fault(observation: object) -> str | None:
    """Return in one clause what is wrong with an observation; None: nothing."""
    if not isinstance(observation, Data):
        return f"is a {type(observation).__name__}, expected torch_geometric.data.Data"
    missing = [key for key in REQUIRED if not isinstance(observation.get(key), Tensor)]
    if missing:
        return f"has no tensor {', '.join(missing)} (has {', '.join(observation.keys())})"
    return _shape_fault(observation) or _value_fault(observation)


def _shape_fault(data: Data) -> str | None:
    edges, decisions = data.edge_index.shape[-1], data.decision_index.numel()
    if data.x.ndim != 2 or data.x.shape[0] == 0:
        return f"has x of shape {tuple(data.x.shape)}, expected [nodes >= 1, features]"
    if tuple(data.edge_index.shape) != (2, edges):
        return f"has edge_index of shape {tuple(data.edge_index.shape)}, expected [2, edges]"
    if data.edge_attr.ndim != 2 or data.edge_attr.shape[0] != edges:
        return f"has edge_attr of shape {tuple(data.edge_attr.shape)}, expected [{edges}, >= 1]"
    if data.decision_index.ndim != 1 or decisions == 0:
        return "has no decision nodes (decision_index must name at least one node)"
    mask = data.get("action_mask")
    if mask is not None and tuple(mask.shape) != (decisions,):
        return f"has action_mask of shape {tuple(mask.shape)}, expected [{decisions}]"
    prior = data.get("prior")
    if prior is not None and tuple(prior.shape) != (decisions,):
        return f"has prior of shape {tuple(prior.shape)}, expected [{decisions}]"
    channels = [data.get(key) is not None for key in ("channel_x", "channel_index")]
    if any(channels) and not all(channels):
        return "has only one of channel_x and channel_index"
    if all(channels) and data.channel_x.shape[0] != data.channel_index.shape[0]:
        return f"has {len(data.channel_x)} channel_x for {len(data.channel_index)} channel_index"
    earlier = [len(data[key]) for key in ("decided_index", "decided") if data.get(key) is not None]
    if earlier and earlier != 2 * earlier[:1]:
        return "has not one entry of decided for each of decided_index"
    return None


def _value_fault(data: Data) -> str | None:
    nodes = data.x.shape[0]
    for key in POINTERS:
        pointer = data.get(key)
        if pointer is None or not pointer.numel():
            continue
        if pointer.dtype != torch.long:
            return f"has {key} of {pointer.dtype}, expected torch.int64"
        if int(pointer.min()) < 0 or int(pointer.max()) >= nodes:
            return f"has {key} outside its {nodes} nodes"
    for key in ("x", "edge_attr", "channel_x", "prior", "decided"):
        values = data.get(key)
        if values is not None and not bool(torch.isfinite(values).all()):
            return f"has NaN or infinite values in {key}"
    mask = data.get("action_mask")
    if mask is not None and not bool(mask.any()):
        return "allows no decision (action_mask is False everywhere)"
    return None


class GraphSpace(gymnasium.Space[Data]):
    """The Gymnasium space of all well-formed graph observations."""

    def contains(self, x: Any) -> bool:
        """Whether `x` keeps the contract of a graph observation."""
        return fault(x) is None


@dataclass(frozen=True)
class ObservationSpec:
    """The sizes and the action kind that a policy is built for.

    channel_features is 0 where the observations have no level of channels.
    """

    node_features: int
    edge_features: int
    channel_features: int
    action_kind: ActionKind

    def __post_init__(self) -> None:
        if self.action_kind not in ACTION_KINDS:
            expected = ", ".join(ACTION_KINDS)
            raise ValueError(f"action_kind {self.action_kind!r}: expected one of {expected}")

    @classmethod
    def of(cls, observation: Data, action_kind: ActionKind) -> ObservationSpec:
        """Read the widths off one observation."""
        channels = observation.get("channel_x")
        return cls(
            node_features=observation.x.shape[1],
            edge_features=observation.edge_attr.shape[1],
            channel_features=0 if channels is None else channels.shape[1],
            action_kind=action_kind,
        )


def digest(observation: Data) -> str:
    """Return a digest of the fields of the contract: equal content, equal digest."""
    return _digest(observation, (*REQUIRED, *OPTIONAL, *SUBSET))


def structure(observation: Data) -> str:
    """Return a digest of the graph and its decisions, whatever their features.

    Features are measured, so that the last digits differ from machine to machine; what is known of
    single decisions holds for every observation of the same structure.
    """
    return _digest(observation, STRUCTURE)


def _digest(observation: Data, keys: Sequence[str]) -> str:
    hasher = hashlib.sha1(usedforsecurity=False)
    for key in keys:
        value = observation.get(key)
        if value is not None:
            hasher.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            hasher.update(value.detach().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def distinct(observations: Sequence[Data]) -> tuple[list[Data], Tensor]:
    """Return the G distinct observations and the index of each of the B among them, [B].

    They are compared by content, so that a resumed search computes what an unbroken one does.
    """
    place: dict[str, int] = {}
    known: dict[int, int] = {}
    graphs: list[Data] = []
    for observation in observations:
        if id(observation) not in known:
            known[id(observation)] = place.setdefault(digest(observation), len(place))
            if len(place) > len(graphs):
                graphs.append(observation)
    return graphs, torch.tensor([known[id(observation)] for observation in observations])


def collate(graphs: Sequence[Data]) -> Batch:
    """Join graphs into one; `decision_index_batch [A]` is the graph of each decision.

    `ValueError` if some have a field, such as the channels, and others have not.
    """
    for key in OPTIONAL:
        if len({graph.get(key) is None for graph in graphs}) > 1:
            raise ValueError(f"{key} is in some observations of a batch and missing in others")
    other = set().union(*(graph.keys() for graph in graphs)) - {*REQUIRED, *OPTIONAL}
    return Batch.from_data_list(
        list(graphs), follow_batch=["decision_index", "decided_index"], exclude_keys=list(other)
    )


def to_tensors(observation: Data) -> dict[str, Tensor]:
    """Return the fields of the contract as a plain dict, for saving without pickled classes."""
    keys = [k for k in (*REQUIRED, *OPTIONAL, *SUBSET) if observation.get(k) is not None]
    return {key: observation[key] for key in keys}
