"""The shape of an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Shape: TypeAlias = tuple[int, int, int]  # channels, height, width


def as_shape(sizes: Iterable[int]) -> Shape:
    """Return the three sizes as a tuple."""
    channels, height, width = sizes
    return channels, height, width
