"""The one exception for bad user input, and what is read of the exceptions of others."""

from __future__ import annotations


class UserError(ValueError):
    """What the user gave cannot be used. The message is one sentence: what, got, expected, do."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: Python's, or PyTorch's on the processor or a GPU, which says so;
    or whether that is what an error came from."""
    if isinstance(error, MemoryError) or "tried to allocate" in str(error).lower():
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


def pass_on_shortage(error: Exception) -> None:
    """Raise an error again where memory was short: that is no fault of what was tried."""
    if out_of_memory(error):
        raise error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
