"""The one exception for bad user input."""

from __future__ import annotations


class UserError(ValueError):
    """What the user gave cannot be used. The message is one sentence: what, got, expected, do."""
