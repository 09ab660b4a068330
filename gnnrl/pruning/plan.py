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


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """What to keep of a network; frozen, and equal plans have the same bytes and hash.

    kept: for each layer that loses filters, the indices it keeps, ascending; layers that are
    not named keep all.  removed_layers: layers, blocks or single operations that are replaced by
    the identity (`gnnrl.graph.removal`).
    weight_sparsity: for each layer named, the fraction of single weights set to zero, [0, 1).
    Raises `UserError` for indices that are empty, negative, repeated or not ascending.
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed_layers: frozenset[str] = frozenset()
    weight_sparsity: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {str(k): _indices(k, v) for k, v in sorted(self.kept.items())}
        sparsity = {str(k): _sparsity(k, v) for k, v in sorted(self.weight_sparsity.items())}
        removed = frozenset(self.removed_layers)
        both = removed & (kept.keys() | sparsity.keys())
        if both:
            raise UserError(f"layer {min(both)!r} is removed and kept at once; name it only once")
        object.__setattr__(self, "kept", MappingProxyType(kept))
        object.__setattr__(self, "removed_layers", removed)
        object.__setattr__(self, "weight_sparsity", MappingProxyType(sparsity))

    def to_json(self) -> dict[str, Any]:
        """Plain values, in a fixed order."""
        return {
            "kept": {layer: list(filters) for layer, filters in self.kept.items()},
            "removed_layers": sorted(self.removed_layers),
            "weight_sparsity": dict(self.weight_sparsity),
        }

    @classmethod
    def from_json(cls, content: Any) -> PruningPlan:
        """From what `to_json` gave; raises `UserError` for anything else."""
        known = {"kept", "removed_layers", "weight_sparsity"}
        if not isinstance(content, Mapping) or set(content) - known or "kept" not in content:
            raise UserError(f"not a pruning plan: expected an object with {sorted(known)}")
        try:
            if not isinstance(content.get("removed_layers", []), list):
                raise TypeError("removed_layers is not a list")
            return cls(
                content["kept"],
                frozenset(content.get("removed_layers", ())),
                content.get("weight_sparsity", {}),
            )
        except (AttributeError, TypeError) as error:
            raise UserError(f"not a pruning plan: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON; the same plan gives the same bytes."""
        Path(path).write_text(self._text() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> PruningPlan:
        """Read what `save` wrote."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{path}: no plan here; run `python -m stages.search` first") from None
        except (UserError, ValueError) as error:
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
        return PruningPlan, (dict(self.kept), self.removed_layers, dict(self.weight_sparsity))

    def _text(self) -> str:
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))


def _indices(layer: str, filters: Iterable[int]) -> tuple[int, ...]:
    found = tuple(index(i) for i in filters)
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


def _sparsity(layer: str, value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0.0 <= number < 1.0):
        raise UserError(f"weight_sparsity of layer {layer!r} must be in [0, 1), got {value}")
    return number
