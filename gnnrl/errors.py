"""The one exception for bad user input, and how a shortage of memory is known."""

from __future__ import annotations


class UserError(ValueError):
    """What the user gave cannot be used. The message is one sentence: what, got, expected, do."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: Python's, or PyTorch's on the processor or a GPU, which says so."""
    return isinstance(error, MemoryError) or "tried to allocate" in str(error).lower()
