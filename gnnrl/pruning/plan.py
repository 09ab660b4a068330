"""What to keep of a network: found by the search, applied by the surgery."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gnnrl.errors import UserError
from gnnrl.files import atomic_write, read_json
from gnnrl.sealed import opened, sealed


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """What to keep of a network; frozen, and equal plans have the same bytes and hash.

    kept: for each layer that loses filters, the indices it keeps, ascending; layers that are
    not named keep all.  removed_layers: layers, blocks or single operations that are replaced by
    the identity (`gnnrl.graph.removal`).
    weight_sparsity: for each layer named, the fraction of single weights set to zero, [0, 1).
    kernels: for each convolution named, the size of its smaller kernel (`gnnrl.graph.kernels`).
    masks: for each layer named, which single weights it keeps, all others being set to zero, as
    text (`gnnrl.graph.masks`).
    Raises `UserError` for indices that are empty, negative, repeated or not ascending.
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed_layers: frozenset[str] = frozenset()
    weight_sparsity: Mapping[str, float] = field(default_factory=dict)
    kernels: Mapping[str, int] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {str(k): _indices(k, v) for k, v in sorted(self.kept.items())}
        sparsity = {str(k): _sparsity(k, v) for k, v in sorted(self.weight_sparsity.items())}
        kernels = {str(k): _size(k, v) for k, v in sorted(self.kernels.items())}
        removed = frozenset(self.removed_layers)
        masks = dict(sorted(self.masks.items()))
        both = removed & (kept.keys() | sparsity.keys() | kernels.keys() | masks.keys())
        if both:
            raise UserError(f"layer {min(both)!r} is removed and kept at once; name it only once")
        object.__setattr__(self, "kept", MappingProxyType(kept))
        object.__setattr__(self, "removed_layers", removed)
        object.__setattr__(self, "weight_sparsity", MappingProxyType(sparsity))
        object.__setattr__(self, "kernels", MappingProxyType(kernels))
        object.__setattr__(self, "masks", MappingProxyType(masks))

    def to_json(self) -> dict[str, Any]:
        """Plain values, in a fixed order."""
        return {
            "kept": {layer: list(filters) for layer, filters in self.kept.items()},
            "removed_layers": sorted(self.removed_layers),
            "weight_sparsity": dict(self.weight_sparsity),
            **({"kernels": dict(self.kernels)} if self.kernels else {}),
            **({"masks": dict(self.masks)} if self.masks else {}),
        }

    @classmethod
    def from_json(cls, content: Any) -> PruningPlan:
        """From what `to_json` gave; raises `UserError` for anything else."""
        known = {"kept", "removed_layers", "weight_sparsity", "kernels", "masks"}
        if not isinstance(content, Mapping) or set(content) - known or "kept" not in content:
            raise UserError(f"not a pruning plan: expected an object with {sorted(known)}")
        kept, sparsity = content["kept"], content.get("weight_sparsity", {})
        kernels, masks = content.get("kernels", {}), content.get("masks", {})
        removed = content.get("removed_layers", [])
        if not all(isinstance(each, Mapping) for each in (kept, sparsity, kernels, masks)):
            raise UserError(
                "not a pruning plan: kept, weight_sparsity, kernels and masks are objects by layer"
            )
        if not all(isinstance(text, str) for text in masks.values()):
            raise UserError("not a pruning plan: the mask of a layer is a text")
        if not (isinstance(removed, list) and all(isinstance(name, str) for name in removed)):
            raise UserError("not a pruning plan: removed_layers is a list of names")
        for layer, filters in kept.items():
            if not (isinstance(filters, list) and all(type(i) is int for i in filters)):
                raise UserError(f"not a pruning plan: layer {layer!r} keeps a list of numbers")
        for layer, value in sparsity.items():
            if type(value) not in (int, float):
                raise UserError(f"not a pruning plan: the sparsity of {layer!r} is {value!r}")
        return cls(kept, frozenset(removed), sparsity, kernels, masks)

    def save(self, path: str | Path, graph: str = "") -> None:
        """Write the plan as JSON; the same plan gives the same bytes.

        graph: digest of the graph that it is a plan of, which `load` compares.
        """
        origin = {"graph": graph} if graph else {}
        text = json.dumps(
            sealed({**origin, **self.to_json()}), sort_keys=True, separators=(",", ":")
        )
        atomic_write(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: str | Path, graph: str = "") -> PruningPlan:
        """Read what `save` wrote; refuse a file that was changed, or the plan of another graph.

        A file without `format` and `sha256` is taken as it is, so a plan can be written by hand.
        """
        try:
            content = opened(read_json(path))
            if graph and content.pop("graph", graph) != graph:
                raise UserError("it is the plan of another graph than the one given")
            content.pop("graph", None)
            return cls.from_json(content)
        except FileNotFoundError:
            raise UserError(f"{path}: no plan here; run `python -m stages.search` first") from None
        except UserError as error:
            raise UserError(f"{path}: {error}; search again (`python -m stages.search`)") from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: the plan's identity."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PruningPlan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        mappings = dict(self.weight_sparsity), dict(self.kernels), dict(self.masks)
        return PruningPlan, (dict(self.kept), self.removed_layers, *mappings)

    def _text(self) -> str:
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))


def _indices(layer: str, filters: Iterable[int]) -> tuple[int, ...]:
    found = tuple(index(i) for i in filters)
    if found and found[-1] >= 2**31:
        raise UserError(f"layer {layer!r} has no filter {found[-1]}; keep filters that it has")
    if not found:
        raise UserError(
            f"layer {layer!r} keeps no filter; keep at least one (to drop the whole layer, name "
            "it in removed_layers)"
        )
    if found[0] < 0 or any(a >= b for a, b in pairwise(found)):
        raise UserError(
            f"filters kept of layer {layer!r} must be ascending, without repetition and not "
            f"negative, got {list(found[:8])}{'…' if len(found) > 8 else ''}"
        )
    return found


def _size(layer: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UserError(
            f"the kernel of layer {layer!r} must have a size of at least 1, got {value!r}"
        )
    return value


def _sparsity(layer: str, value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0.0 <= number < 1.0):
        raise UserError(f"weight_sparsity of layer {layer!r} must be in [0, 1), got {value}")
    return number
