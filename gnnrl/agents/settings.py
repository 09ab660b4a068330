"""Flat parameters shared out among the settings of an agent."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from gnnrl.errors import UserError

Settings = TypeVar("Settings")


def close_matches(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3)
    return (
        f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    )


def split(parameters: Mapping[str, Any], *kinds: type[Any]) -> list[Any]:
    """Return one settings object per dataclass, each with the parameters that it names."""
    fields = [{field.name for field in dataclasses.fields(kind)} for kind in kinds]
    known = set().union(*fields)
    for name in parameters:
        if name not in known:
            raise UserError(f"unknown agent parameter {name!r}: {close_matches(name, known)}")
    return [
        kind(**{name: value for name, value in parameters.items() if name in names})
        for kind, names in zip(kinds, fields, strict=True)
    ]
