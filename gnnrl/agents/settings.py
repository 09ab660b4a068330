"""Flat parameters distributed over the settings of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnrl.errors import UserError
from gnnrl.registry import hint
from gnnrl.settings import Settings


def split(parameters: Mapping[str, Any], *kinds: type[Settings]) -> list[Any]:
    """Return one settings object per kind, each with the parameters that it names."""
    known = {name for kind in kinds for name in kind.model_fields}
    for name in parameters:
        if name not in known:
            near = hint(name, sorted(known), f"known: {', '.join(sorted(known)) or 'none'}")
            raise UserError(f"unknown agent parameter {name!r}: {near}")
    return [
        kind(**{name: parameters[name] for name in kind.model_fields if name in parameters})
        for kind in kinds
    ]
